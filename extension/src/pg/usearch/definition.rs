//! What an index is of: the operator class's meaning, the column's dimensions.

use pgrec_engine::index::Shape;
use pgrec_kernels::{Format, Metric};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, Oid, Relation};

use super::options::IndexOptions;
use crate::error::{Result, SqlError};
use crate::pg::vector::Kind;

/// Support functions of an operator class: one, which says what it means.
pub const SUPPORT_FUNCTIONS: u16 = 1;

/// What an operator class orders, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    pub kind: Kind,
    pub metric: Metric,
}

/// One C function a meaning, the support function of its operator class; its value is the place in [`MEANINGS`].
macro_rules! meanings {
    ($($place:literal $function:ident $info:ident $kind:ident $metric:ident;)*) => {
        const MEANINGS: &[Meaning] = &[$(Meaning { kind: Kind::$kind, metric: Metric::$metric }),*];
        $(
            /// Says what its operator class means.
            #[pgrx::pg_guard]
            #[unsafe(no_mangle)]
            pub extern "C-unwind" fn $function(_info: pg_sys::FunctionCallInfo) -> Datum {
                Datum::from($place as usize)
            }

            /// Version-1 calling convention of a C function.
            #[unsafe(no_mangle)]
            pub extern "C" fn $info() -> &'static pg_sys::Pg_finfo_record {
                &pg_sys::Pg_finfo_record { api_version: 1 }
            }
        )*
    };
}
meanings! {
    0 pgrec_usearch_vector_l2 pg_finfo_pgrec_usearch_vector_l2 Vector L2;
    1 pgrec_usearch_vector_ip pg_finfo_pgrec_usearch_vector_ip Vector InnerProduct;
    2 pgrec_usearch_vector_cosine pg_finfo_pgrec_usearch_vector_cosine Vector Cosine;
    3 pgrec_usearch_halfvec_l2 pg_finfo_pgrec_usearch_halfvec_l2 Halfvec L2;
    4 pgrec_usearch_halfvec_ip pg_finfo_pgrec_usearch_halfvec_ip Halfvec InnerProduct;
    5 pgrec_usearch_halfvec_cosine pg_finfo_pgrec_usearch_halfvec_cosine Halfvec Cosine;
    6 pgrec_usearch_bit_hamming pg_finfo_pgrec_usearch_bit_hamming Bit Hamming;
}

impl Meaning {
    /// What a support function says.
    ///
    /// # Safety
    /// The function takes one argument and looks at none, as those above.
    unsafe fn of_function(function: Oid) -> Option<Self> {
        if function == Oid::INVALID {
            return None;
        }
        // SAFETY: the caller's. Operator classes are made by superusers only.
        let place = unsafe { pg_sys::OidFunctionCall1Coll(function, Oid::INVALID, Datum::from(0usize)) };
        MEANINGS.get(place.value()).copied()
    }

    /// What an operator class says it means.
    pub fn of_class(class: Oid) -> Option<Self> {
        // SAFETY: cache look-ups; the names of fields are those of pg_opclass.
        unsafe {
            let family = pg_sys::get_opclass_family(class);
            let input = pg_sys::get_opclass_input_type(class);
            Self::of_function(pg_sys::get_opfamily_proc(family, input, input, 1))
        }
    }
}

/// All that an index's pages are made by.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// What its column holds.
    pub kind: Kind,
    /// What its pages say.
    pub shape: Shape,
}

impl Definition {
    /// Reads it from an open index.
    ///
    /// # Safety
    /// The relation is an open index of this access method.
    pub unsafe fn of(index: Relation) -> Result<Self> {
        // SAFETY: the caller's: such an index has one column, and its operator class the support function.
        let (meaning, dimensions, options) = unsafe {
            let meaning = Meaning::of_function(pg_sys::index_getprocid(index, 1, 1));
            (meaning, type_modifier(index), IndexOptions::of(index))
        };
        let Meaning { kind, metric } = meaning
            .ok_or_else(|| SqlError::state("the operator class is not one of pgrec's for access method usearch"))?;
        let code = |code, message: String| SqlError::new(code, message);
        let Some(dimensions) = usize::try_from(dimensions).ok().filter(|&dimensions| dimensions > 0) else {
            let name = kind.name();
            return Err(code(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "column does not have dimensions".into(),
            )
            .hint(format!(
                "Give the column a type such as {name}(64), or index the expression (column::{name}(64))."
            )));
        };
        let most = kind.most_dimensions();
        if dimensions > most {
            return Err(code(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("column cannot have more than {most} dimensions for usearch index"),
            ));
        }
        let exact = kind.scalar();
        let scalar = options.scalar.unwrap_or(exact);
        let format = |scalar| Format::new(metric, scalar, dimensions);
        let (Ok(_), Ok(_)) = (format(exact), format(scalar)) else {
            let name = format!("{scalar:?}").to_lowercase();
            return Err(SqlError::parameter(format!("a usearch index of {} does not store {name}", kind.name()))
                .hint("\"i8\" is for cosine operator classes, and bit columns are stored as they are."));
        };
        Ok(Self { kind, shape: Shape { metric, dim: dimensions, exact, scalar, options: options.segment } })
    }
}

/// The type modifier of the index's column: its number of dimensions; -1 where it has none.
///
/// # Safety
/// The relation is an open index.
unsafe fn type_modifier(index: Relation) -> i32 {
    // SAFETY: an index has at least one column.
    unsafe {
        let descriptor = pgrx::PgTupleDesc::from_pg_unchecked((*index).rd_att);
        descriptor.get(0).map_or(-1, |column| column.atttypmod)
    }
}
