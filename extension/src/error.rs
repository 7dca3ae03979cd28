//! Errors at the SQL border: SQLSTATE, what went wrong, the facts, and what to do.

use pgrec_kernels::cuda::CudaError;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys::panic::ErrorReport};
use serde_json::{Value, json};

/// Result of everything that ends in SQL.
pub type Result<T> = std::result::Result<T, SqlError>;

/// One error as psql shows it.
#[derive(Debug, Clone)]
pub struct SqlError {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl SqlError {
    /// An error with a SQLSTATE and a primary message.
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None }
    }

    /// A parameter that makes no sense (22023).
    pub fn parameter(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    /// Something named that does not exist (42704).
    pub fn undefined(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
    }

    /// The objects are not in the state the call needs (55000).
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
    }

    /// Missing privileges (42501).
    pub fn privilege(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
    }

    /// Stored or given bytes that are not what they claim to be (XX001).
    pub fn corrupted(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, message)
    }

    /// Adds the DETAIL line.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the HINT line.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether it says that the objects are not in the state the call needs.
    pub fn is_state(&self) -> bool {
        self.code == PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// A cancellation by Postgres in the words of a catalogue; every other error as it is.
    pub fn into_cancellation(self) -> Self {
        let own = self.message.starts_with("cancelled");
        match self.code {
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED if !own => {
                Self { message: format!("cancelled: {}", self.message), ..self }
            }
            _ => self,
        }
    }

    /// Message and hint in one line, for a catalogue's column.
    pub fn reason(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }

    /// All of it, for another session to raise: [`SqlError::from_json`].
    pub fn to_json(&self) -> Value {
        json!({ "sqlstate": sqlstate(self.code), "message": self.message, "detail": self.detail, "hint": self.hint })
    }

    /// What [`SqlError::to_json`] wrote.
    pub fn from_json(value: &Value) -> Self {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            code: text("sqlstate").map_or(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, |state| code(&state)),
            message: text("message").unwrap_or_default(),
            detail: text("detail"),
            hint: text("hint"),
        }
    }

    fn into_report(self) -> ErrorReport {
        let mut report = ErrorReport::new(self.code, self.message, "pgrec");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report
    }

    /// Raises it as an ERROR; the transaction aborts.
    pub fn raise(self) -> ! {
        self.into_report().report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }

    /// Sends it to the client as a WARNING and goes on.
    pub fn warn(self) {
        self.into_report().report(PgLogLevel::WARNING);
    }
}

impl From<pgrec_engine::Error> for SqlError {
    fn from(e: pgrec_engine::Error) -> Self {
        use pgrec_engine::Error;
        let message = e.to_string();
        match e {
            Error::Cancelled => {
                Self::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "canceling statement due to user request")
            }
            Error::Parameter(_) => Self::parameter(message),
            Error::Malformed(_) => Self::new(PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION, message),
            Error::Data(_) => Self::state(message),
            Error::Memory(_) => Self::new(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message)
                .hint("Raise rec.training_memory."),
            Error::Device(CudaError::Driver { .. }) => Self::new(PgSqlErrorCode::ERRCODE_SYSTEM_ERROR, message).hint(
                "SET rec.device = cpu; computes without it. A device that a kernel stopped works again in a new session.",
            ),
            Error::Device(_) => Self::new(PgSqlErrorCode::ERRCODE_SYSTEM_ERROR, message)
                .hint("SET rec.device = cpu; computes without it."),
            Error::File(_) => Self::new(PgSqlErrorCode::ERRCODE_IO_ERROR, message),
            Error::Unsupported { .. } => Self::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message),
        }
    }
}

impl From<CudaError> for SqlError {
    fn from(e: CudaError) -> Self {
        pgrec_engine::Error::Device(e).into()
    }
}

/// The five characters of a code, which has six bits of each (MAKE_SQLSTATE).
fn sqlstate(code: PgSqlErrorCode) -> String {
    (0..5).map(|place| char::from(b'0' + ((code as i32 >> (6 * place)) & 0x3f) as u8)).collect()
}

/// The other way round.
fn code(sqlstate: &str) -> PgSqlErrorCode {
    let bits = |byte: u8| i32::from(byte.wrapping_sub(b'0') & 0x3f);
    let packed = sqlstate.bytes().take(5).enumerate().fold(0, |code, (place, byte)| code | bits(byte) << (6 * place));
    PgSqlErrorCode::from(packed)
}

/// Gives the value, or raises the error in SQL.
pub fn or_raise<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|e| e.raise())
}
