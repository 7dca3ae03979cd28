//! What a process that owns the models and those who ask it have in common, but for the memory they share: the states
//! of a place in it ([`slots`]), questions and answers as numbers ([`message`]), the computing of several questions at
//! once ([`batch`]), and what is counted ([`statistics`]).

pub mod batch;
pub mod message;
pub mod slots;
pub mod statistics;
