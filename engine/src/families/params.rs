//! Reading a family's parameters.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Reads `params` into a family's own type, which denies unknown fields: the error then lists the known ones.
/// NULL stands for no parameters.
pub(crate) fn read<T: DeserializeOwned>(family: &str, params: &Value) -> Result<T> {
    let object = match params {
        Value::Null => Value::Object(Map::new()),
        Value::Object(_) => params.clone(),
        _ => return Err(Error::Parameter(format!("parameters of family \"{family}\" must be a JSON object"))),
    };
    serde_json::from_value(object).map_err(|e| Error::Parameter(format!("parameters of family \"{family}\": {e}")))
}
