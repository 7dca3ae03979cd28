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
