//! The typed functions of a recommender's schema: thin SQL, with exactly its id types, already bound to it.
//!
//! Their bodies are text with every name qualified, not parsed expressions, so that they do not hold back
//! `ALTER EXTENSION pgrec UPDATE` and are dumped as ordinary functions of their owner.

use crate::catalog::IdType;
use crate::catalog::recommender::quoted;
use crate::catalog::schemas::Schemas;
use crate::error::Result;
use crate::pg::spi::{self, Mode};

#[derive(Clone, Copy)]
enum Kind {
    User,
    Users,
    Item,
    Items,
    /// `semantic_id`
    Code,
    Plain(&'static str),
}

struct Argument {
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
}

enum Returns {
    /// `(rank, item_id, score)`
    Ranked,
    /// `(user_id, rank, item_id, score)`
    RankedPerUser,
    /// pgvector's `vector`
    Vector,
    /// `jsonb`
    Json,
    /// `semantic_id`
    Code,
    /// `(item_id, code)`
    Coded,
    /// `(rank, item_id, shared, distance, code)`
    Neighbours,
    /// `(rank, item_id, score, path)`
    Generated,
    /// `(rank, item_id, distance)`
    Near,
    /// `(rank, word, weight)`
    Words,
    /// `(rank, user_id, distance, probability)`
    Audience,
    /// Whether something was done, which it is for.
    Done,
}

struct Function {
    name: &'static str,
    arguments: &'static [Argument],
    returns: Returns,
    comment: &'static str,
}

const fn argument(name: &'static str, kind: Kind) -> Argument {
    Argument { name, kind, default: None }
}

const fn option(name: &'static str, kind: Kind, default: &'static str) -> Argument {
    Argument { name, kind, default: Some(default) }
}

const K: Argument = option("k", Kind::Plain("integer"), "10");
const CANDIDATES: Argument = option("candidates", Kind::Items, "NULL");
const EXCLUDE: Argument = option("exclude", Kind::Items, "NULL");
const EXCLUDE_SEEN: Argument = option("exclude_seen", Kind::Plain("boolean"), "true");
const SESSION: Argument = option("session", Kind::Items, "NULL");
const AT: Argument = option("at", Kind::Plain("timestamptz"), "pg_catalog.now()");
const MODEL: Argument = option("model", Kind::Plain("text"), "NULL");

/// The functions, with the arguments of their doors in the same order, but for the recommender, which comes after the
/// model.
static FUNCTIONS: &[Function] = &[
    Function {
        name: "next",
        arguments: &[
            argument("user_id", Kind::User),
            K,
            CANDIDATES,
            EXCLUDE,
            EXCLUDE_SEEN,
            SESSION,
            MODEL,
            AT,
            option("steer", Kind::Plain("real[]"), "NULL"),
            option("weight", Kind::Plain("real"), "0.5"),
        ],
        returns: Returns::Ranked,
        comment: "The k items this user is most likely to touch next, best first",
    },
    Function {
        name: "next_many",
        arguments: &[argument("user_ids", Kind::Users), K, CANDIDATES, EXCLUDE, EXCLUDE_SEEN, MODEL, AT],
        returns: Returns::RankedPerUser,
        comment: "rec_next for many users at once, on all cores",
    },
    Function {
        name: "next_session",
        arguments: &[argument("item_ids", Kind::Items), K, CANDIDATES, EXCLUDE, EXCLUDE_SEEN, MODEL, AT],
        returns: Returns::Ranked,
        comment: "What follows these items, oldest first, for somebody who is not a stored user",
    },
    Function {
        name: "score",
        arguments: &[argument("user_id", Kind::User), argument("item_ids", Kind::Items), SESSION, MODEL, AT],
        returns: Returns::Ranked,
        comment: "Ranks the given items for this user",
    },
    Function {
        name: "search",
        arguments: &[
            argument("user_id", Kind::User),
            argument("query", Kind::Plain("text")),
            K,
            option("embedding", Kind::Plain("real[]"), "NULL"),
            CANDIDATES,
            EXCLUDE,
            option("exclude_seen", Kind::Plain("boolean"), "NULL"),
            MODEL,
            AT,
        ],
        returns: Returns::Ranked,
        comment: "The k items that answer a query best, for this user, who may be NULL",
    },
    Function {
        name: "keywords",
        arguments: &[argument("words", Kind::Plain("text[]")), K, CANDIDATES, EXCLUDE, MODEL],
        returns: Returns::Ranked,
        comment: "The k items for somebody of whom nothing is known but these words",
    },
    Function {
        name: "demand",
        arguments: &[
            argument("user_id", Kind::User),
            argument("item_id", Kind::Item),
            option("k", Kind::Plain("integer"), "5"),
            SESSION,
            MODEL,
            AT,
        ],
        returns: Returns::Words,
        comment: "The words nearest to what this user would want of this item now",
    },
    Function {
        name: "similar",
        arguments: &[argument("item_id", Kind::Item), K, CANDIDATES, EXCLUDE, MODEL],
        returns: Returns::Ranked,
        comment: "The k items most like this one, best first, without itself",
    },
    Function {
        name: "encode",
        arguments: &[argument("user_id", Kind::User), SESSION, MODEL, AT],
        returns: Returns::Vector,
        comment: "The user's vector: a score is its inner product with an item's vector",
    },
    Function {
        name: "explain",
        arguments: &[argument("user_id", Kind::User), argument("item_id", Kind::Item), SESSION, MODEL, AT],
        returns: Returns::Json,
        comment: "Why this user gets (or does not get) this item",
    },
    Function {
        name: "semantic_id",
        arguments: &[argument("item_id", Kind::Item), MODEL],
        returns: Returns::Code,
        comment: "The code of an item",
    },
    Function {
        name: "semantic_ids",
        arguments: &[MODEL],
        returns: Returns::Coded,
        comment: "All items that have a code, in the order of their codes",
    },
    Function {
        name: "semantic_items",
        arguments: &[argument("prefix", Kind::Code), option("k", Kind::Plain("integer"), "1000"), MODEL],
        returns: Returns::Coded,
        comment: "The first k items whose codes begin with a prefix, in the order of their codes",
    },
    Function {
        name: "semantic_neighbours",
        arguments: &[argument("item_id", Kind::Item), K, MODEL],
        returns: Returns::Neighbours,
        comment: "The k items whose codes are nearest to the item's",
    },
    Function {
        name: "generate",
        arguments: &[
            argument("user_id", Kind::User),
            K,
            option("beam", Kind::Plain("integer"), "NULL"),
            CANDIDATES,
            EXCLUDE,
            EXCLUDE_SEEN,
            SESSION,
            option("words", Kind::Plain("text[]"), "NULL"),
            MODEL,
        ],
        returns: Returns::Generated,
        comment: "The k items whose codes a generative model finds most likely to follow, best first",
    },
    Function {
        name: "near",
        arguments: &[argument("user_id", Kind::User), K, EXCLUDE, EXCLUDE_SEEN, SESSION, AT],
        returns: Returns::Near,
        comment: "The k items whose published vectors are nearest to the user's",
    },
    Function {
        name: "audience",
        arguments: &[
            option("item_id", Kind::Item, "NULL"),
            option("k", Kind::Plain("integer"), "100"),
            option("embedding", Kind::Plain("real[]"), "NULL"),
            option("attributes", Kind::Plain("text[]"), "NULL"),
            EXCLUDE_SEEN,
        ],
        returns: Returns::Audience,
        comment: "The k users most likely to want an item, or something with this content, likeliest first",
    },
    Function {
        name: "forget",
        arguments: &[argument("user_id", Kind::User)],
        returns: Returns::Done,
        comment: "Removes what is kept of a user besides the interactions",
    },
];

/// Creates the typed functions of a recommender in its schema, owned by the caller.
///
/// Integer ids are taken as bigint, to which integers widen, so that these functions and the public ones do not
/// compete for an untyped literal. For a uuid there is a second form that takes text, to which an untyped literal or
/// driver parameter resolves, as text is preferred; of arrays none is, so there is one form of them.
pub fn create(recommender: &str, users: IdType, items: IdType) -> Result<()> {
    let schemas = Schemas::find()?;
    for function in FUNCTIONS {
        spi::run(&function.sql(&schemas, recommender, users, items, false))?;
        if function.requires_uuid(users, items) {
            spi::run(&function.sql(&schemas, recommender, users, items, true))?;
        }
    }
    Ok(())
}

/// Drops what [`create`] made, in all forms.
pub fn drop(recommender: &str) -> Result<()> {
    let names: Vec<String> = FUNCTIONS.iter().map(|f| format!("rec_{}", f.name)).collect();
    let signatures = spi::query(
        Mode::Write,
        "SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p \
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
         WHERE n.nspname = $1 AND p.proname = ANY ($2) AND l.lanname = 'sql'",
        &[spi::Arg::Text(recommender), spi::Arg::Texts(&names)],
        |row| row.need::<String>(0),
    )?;
    for signature in signatures {
        spi::run(&format!("DROP FUNCTION {signature}"))?;
    }
    Ok(())
}

impl Kind {
    fn id_type(self, users: IdType, items: IdType) -> Option<IdType> {
        match self {
            Kind::User | Kind::Users => Some(users),
            Kind::Item | Kind::Items => Some(items),
            Kind::Code | Kind::Plain(_) => None,
        }
    }

    fn is_array(self) -> bool {
        matches!(self, Kind::Users | Kind::Items)
    }

    fn declared(self, schemas: &Schemas, users: IdType, items: IdType, as_text: bool) -> String {
        if matches!(self, Kind::Code) {
            return format!("{}.semantic_id", schemas.own);
        }
        let Kind::Plain(name) = self else {
            let name = match self.id_type(users, items) {
                Some(IdType::Uuid) if self.is_array() || !as_text => "uuid",
                Some(IdType::Uuid | IdType::Text) => "text",
                _ => "bigint",
            };
            return format!("{name}{}", if self.is_array() { "[]" } else { "" });
        };
        name.to_owned()
    }
}

impl Function {
    fn requires_uuid(&self, users: IdType, items: IdType) -> bool {
        let single = |a: &Argument| a.default.is_none() && !a.kind.is_array();
        self.arguments.iter().any(|a| single(a) && a.kind.id_type(users, items) == Some(IdType::Uuid))
    }

    fn sql(&self, schemas: &Schemas, recommender: &str, users: IdType, items: IdType, as_text: bool) -> String {
        let integer_door = users.is_integer() && items.is_integer();
        let declared: Vec<String> = self
            .arguments
            .iter()
            .map(|a| {
                let default = a.default.map(|d| format!(" DEFAULT {d}")).unwrap_or_default();
                format!("{} {}{default}", a.name, a.kind.declared(schemas, users, items, as_text))
            })
            .collect();
        let types: Vec<String> =
            self.arguments.iter().map(|a| a.kind.declared(schemas, users, items, as_text)).collect();
        let mut passed: Vec<String> = self
            .arguments
            .iter()
            .enumerate()
            .map(|(index, a)| match a.kind {
                Kind::Code | Kind::Plain(_) => format!("${}", index + 1),
                kind if integer_door => format!("${}::bigint{}", index + 1, if kind.is_array() { "[]" } else { "" }),
                kind => format!("${}::text{}", index + 1, if kind.is_array() { "[]" } else { "" }),
            })
            .collect();
        let after_model = self.arguments.iter().position(|a| a.name == MODEL.name).map_or(passed.len(), |at| at + 1);
        passed.insert(after_model, pgrx::spi::quote_literal(recommender));
        let door = match (integer_door, &self.returns) {
            (true, Returns::Vector) => "rec.encode_bigint".to_owned(),
            (true, _) => format!("{}.rec_{}", schemas.own, self.name),
            (false, _) => format!("rec.{}_text", self.name),
        };
        let call = format!("{door}({})", passed.join(", "));
        let (user, item) = (users.sql(), items.sql());
        let vector = &schemas.vector;
        let code = format!("{}.semantic_id", schemas.own);
        let (returns, body) = match self.returns {
            Returns::Ranked => (
                format!("TABLE (rank integer, item_id {item}, score real)"),
                format!("SELECT r.rank, r.item_id::{item}, r.score FROM {call} r"),
            ),
            Returns::RankedPerUser => (
                format!("TABLE (user_id {user}, rank integer, item_id {item}, score real)"),
                format!("SELECT r.user_id::{user}, r.rank, r.item_id::{item}, r.score FROM {call} r"),
            ),
            Returns::Vector => (format!("{vector}.vector"), format!("SELECT {call}::{vector}.vector")),
            Returns::Json => ("jsonb".to_owned(), format!("SELECT {call}")),
            Returns::Done => ("boolean".to_owned(), format!("SELECT {call}")),
            Returns::Code => (code.clone(), format!("SELECT {call}")),
            Returns::Coded => (
                format!("TABLE (item_id {item}, code {code})"),
                format!("SELECT r.item_id::{item}, r.code FROM {call} r"),
            ),
            Returns::Neighbours => (
                format!("TABLE (rank integer, item_id {item}, shared integer, distance real, code {code})"),
                format!("SELECT r.rank, r.item_id::{item}, r.shared, r.distance, r.code FROM {call} r"),
            ),
            Returns::Generated => (
                format!("TABLE (rank integer, item_id {item}, score real, path {code}, agreement real, kept boolean)"),
                format!("SELECT r.rank, r.item_id::{item}, r.score, r.path, r.agreement, r.kept FROM {call} r"),
            ),
            Returns::Near => (
                format!("TABLE (rank integer, item_id {item}, distance real)"),
                format!("SELECT r.rank, r.item_id::{item}, r.distance FROM {call} r"),
            ),
            Returns::Words => (
                "TABLE (rank integer, word text, weight real)".to_owned(),
                format!("SELECT r.rank, r.word, r.weight FROM {call} r"),
            ),
            Returns::Audience => (
                format!("TABLE (rank integer, user_id {user}, distance real, probability real)"),
                format!("SELECT r.rank, r.user_id::{user}, r.distance, r.probability FROM {call} r"),
            ),
        };
        let rows = match self.returns {
            Returns::Ranked | Returns::Neighbours | Returns::Generated | Returns::Near | Returns::Words => " ROWS 10",
            Returns::Audience => " ROWS 100",
            Returns::Coded => " ROWS 1000",
            Returns::RankedPerUser => " ROWS 10000",
            Returns::Vector | Returns::Json | Returns::Code | Returns::Done => "",
        };
        let name = format!("{}.rec_{}", quoted(recommender), self.name);
        let volatility = if matches!(self.returns, Returns::Done) { "VOLATILE" } else { "STABLE PARALLEL RESTRICTED" };
        let comment = pgrx::spi::quote_literal(format!("{} of recommender {recommender}.", self.comment));
        format!(
            "CREATE OR REPLACE FUNCTION {name}({}) RETURNS {returns} LANGUAGE sql {volatility} COST 1000{rows} \
             AS {}; COMMENT ON FUNCTION {name}({}) IS {comment}",
            declared.join(", "),
            pgrx::spi::quote_literal(body),
            types.join(", ")
        )
    }
}
