//! Artifacts as rows: chunks of bytea, each with its CRC, so that WAL, standbys, dumps and DROP carry them.

use crate::error::{Result, SqlError};
use crate::pg::interrupt;
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode};

/// Bytes a chunk: small enough to be cheap to hold, large enough that a gigabyte is a thousand rows.
const CHUNK: usize = 1 << 20;

/// Stores an artifact and gives its CRC32C.
pub fn store(model: i64, bytes: &[u8]) -> Result<u32> {
    role::as_catalog(|| {
        for (number, chunk) in bytes.chunks(CHUNK).enumerate() {
            interrupt::check();
            spi::execute(
                "INSERT INTO rec.artifact (model_id, chunk, crc, data) VALUES ($1, $2, $3, $4)",
                &[
                    Arg::Int8(model),
                    Arg::Int4(number as i32),
                    Arg::Int8(i64::from(crc32c::crc32c(chunk))),
                    Arg::Bytea(chunk),
                ],
            )?;
        }
        Ok(crc32c::crc32c(bytes))
    })
}

/// Reads an artifact chunk by chunk in order, each verified.
pub fn read(model: i64, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    role::as_catalog(|| {
        let mut expected = 0;
        spi::each(
            Mode::Read,
            "SELECT chunk, crc, data FROM rec.artifact WHERE model_id = $1 ORDER BY chunk",
            &[Arg::Int8(model)],
            |row| {
                let chunk: i32 = row.need(0)?;
                let crc: i64 = row.need(1)?;
                let data: Vec<u8> = row.need(2)?;
                if chunk != expected || i64::from(crc32c::crc32c(&data)) != crc {
                    return Err(SqlError::corrupted(format!(
                        "artifact of model {model} is damaged at chunk {expected}"
                    ))
                    .hint("Restore rec.artifact from a backup, or train the model again."));
                }
                expected += 1;
                each(&data)
            },
        )?;
        Ok(())
    })
}
