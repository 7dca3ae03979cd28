//! Reading a family's parameters.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::train::Options;
use crate::{Error, Result};

/// Reads `params` into a family's own type, which denies unknown fields: the error then lists the known ones.
/// NULL stands for no parameters.
pub(crate) fn read<T: DeserializeOwned>(family: &str, params: &Value) -> Result<T> {
    parse(family, object(family, params)?)
}

/// Reads the parameters of a family that is trained by gradients: its own, and those of every training, where
/// `defaults` stands for what is not given.
pub(crate) fn read_trained<T: DeserializeOwned>(
    family: &str,
    params: &Value,
    defaults: &Options,
) -> Result<(T, Options)> {
    let mut own = object(family, params)?;
    let (options, known) = part(family, &mut own, defaults)?;
    let own = parse(family, own).map_err(|error| match error {
        Error::Parameter(why) => Error::Parameter(format!("{why}; those of every training are {}", known.join(", "))),
        other => other,
    })?;
    Ok((own, options))
}

/// Takes some parameters out, where `defaults` stands for what is not given. Gives the others, too.
pub(crate) fn split<T: Serialize + DeserializeOwned>(family: &str, params: &Value, defaults: &T) -> Result<(T, Value)> {
    let mut others = object(family, params)?;
    let (some, _) = part(family, &mut others, defaults)?;
    Ok((some, Value::Object(others)))
}

/// Takes out of an object what `defaults` has fields for, and gives their names, too.
fn part<T: Serialize + DeserializeOwned>(
    family: &str,
    object: &mut Map<String, Value>,
    defaults: &T,
) -> Result<(T, Vec<String>)> {
    let mut part = fields(defaults)?;
    for (key, value) in &mut part {
        if let Some(given) = object.remove(key) {
            *value = given;
        }
    }
    let known = part.keys().cloned().collect();
    Ok((parse(family, part)?, known))
}

/// The most that a size may be: what is larger is a slip of the hand.
const LARGEST: usize = 1 << 20;

/// Checks the parameters of a family. The first that is wrong is the error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks(pub(crate) &'static str);

impl Checks {
    /// The error that the parameters are wrong.
    pub(crate) fn wrong<T>(self, what: impl std::fmt::Display) -> Result<T> {
        Err(Error::Parameter(format!("family \"{}\": {what}", self.0)))
    }

    /// Whole numbers from 1 on.
    pub(crate) fn sizes(self, sizes: &[(&str, usize)]) -> Result<()> {
        match sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            Some((name, _)) => self.wrong(format_args!("{name} is a whole number from 1 to {LARGEST}")),
            None => Ok(()),
        }
    }

    /// Whole numbers from 0 to `most`.
    pub(crate) fn counts(self, most: usize, counts: &[(&str, usize)]) -> Result<()> {
        match counts.iter().find(|(_, count)| *count > most) {
            Some((name, _)) => self.wrong(format_args!("{name} is a whole number from 0 to {most}")),
            None => Ok(()),
        }
    }

    /// Numbers above 0.
    pub(crate) fn positive(self, numbers: &[(&str, f64)]) -> Result<()> {
        match numbers.iter().find(|(_, x)| !x.is_finite() || *x <= 0.0) {
            Some((name, _)) => self.wrong(format_args!("{name} is a number above 0")),
            None => Ok(()),
        }
    }

    /// Numbers from 0 on.
    pub(crate) fn not_negative(self, numbers: &[(&str, f64)]) -> Result<()> {
        match numbers.iter().find(|(_, x)| !x.is_finite() || *x < 0.0) {
            Some((name, _)) => self.wrong(format_args!("{name} is a number from 0 on")),
            None => Ok(()),
        }
    }
}

fn object(family: &str, params: &Value) -> Result<Map<String, Value>> {
    match params {
        Value::Null => Ok(Map::new()),
        Value::Object(fields) => Ok(fields.clone()),
        _ => Err(Error::Parameter(format!("parameters of family \"{family}\" must be a JSON object"))),
    }
}

fn parse<T: DeserializeOwned>(family: &str, fields: Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|e| Error::Parameter(format!("parameters of family \"{family}\": {e}")))
}

fn fields(value: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::Malformed("parameters are no JSON object".into())),
        Err(error) => Err(Error::Malformed(error.to_string())),
    }
}
