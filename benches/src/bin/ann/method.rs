//! The access methods that are compared.

use std::str::FromStr;

use anyhow::{Error, bail};

/// An access method with options of its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// As it was given: `usearch`, or `hnsw:m=24:ef_construction=100`.
    pub label: String,
    kind: Kind,
    /// Names and values for `WITH (…)`.
    options: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Usearch,
    Hnsw,
}

/// How rows lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Euclidean distance.
    L2,
    /// Negative inner product.
    InnerProduct,
    /// One minus the cosine.
    Cosine,
}

/// Whether a filtered scan that goes on gives rows in the order of their distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It does.
    Strict,
    /// Some come late.
    Relaxed,
}

impl Metric {
    /// The operator of pgvector.
    pub fn operator(self) -> &'static str {
        match self {
            Self::L2 => "<->",
            Self::InnerProduct => "<#>",
            Self::Cosine => "<=>",
        }
    }

    fn operator_class(self) -> &'static str {
        match self {
            Self::L2 => "vector_l2_ops",
            Self::InnerProduct => "vector_ip_ops",
            Self::Cosine => "vector_cosine_ops",
        }
    }
}

impl Order {
    /// Both, in the order of what they promise.
    pub const ALL: [Self; 2] = [Self::Strict, Self::Relaxed];

    /// The value of both methods' settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict_order",
            Self::Relaxed => "relaxed_order",
        }
    }
}

impl Method {
    /// Whether it is the peer.
    pub fn is_peer(&self) -> bool {
        self.kind == Kind::Hnsw
    }

    /// Whether it can index for this metric: usearch's 8-bit numbers keep directions only.
    pub fn takes(&self, metric: Metric) -> bool {
        metric == Metric::Cosine || !self.options.contains(&("scalar".to_owned(), "i8".to_owned()))
    }

    /// The name of its index on a table.
    pub fn index(&self, table: &str) -> String {
        let plain: String = self.label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        format!("{table}_{plain}")
    }

    /// The statement that builds its index on the column `embedding`.
    pub fn create_index(&self, table: &str, metric: Metric) -> String {
        let options: Vec<String> = self.options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let with = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
        let (index, method, class) = (self.index(table), self.kind.name(), metric.operator_class());
        format!("CREATE INDEX {index} ON {table} USING {method} (embedding {class}){with}")
    }

    /// The statement that says how many candidates a search keeps.
    pub fn set_width(&self, width: usize) -> String {
        match self.kind {
            Kind::Usearch => format!("SET usearch.expansion_search = {width}"),
            Kind::Hnsw => format!("SET hnsw.ef_search = {width}"),
        }
    }

    /// The statement that makes a filtered scan go on until the query has its rows.
    pub fn set_order(&self, order: Order) -> String {
        format!("SET {}.iterative_scan = {}", self.kind.name(), order.name())
    }

    /// The query that says what state its index on a table is in, where it can tell.
    pub fn state(&self, table: &str) -> Option<String> {
        let index = self.index(table);
        (self.kind == Kind::Usearch).then(|| {
            format!(
                "SELECT format('%s segments, %s rows of which %s not in segments, %s removed ones', segments, rows,
                               delta_rows, dead) FROM rec_index_stats('{index}')"
            )
        })
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Usearch => "usearch",
            Self::Hnsw => "hnsw",
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(label: &str) -> Result<Self, Error> {
        let mut parts = label.split(':');
        let kind = match parts.next() {
            Some("usearch") => Kind::Usearch,
            Some("hnsw") => Kind::Hnsw,
            _ => bail!("a method is usearch or hnsw, with options behind colons: usearch:scalar=f16"),
        };
        let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let mut options = Vec::new();
        for part in parts {
            match part.split_once('=') {
                Some((name, value)) if word(name) && word(value) => options.push((name.to_owned(), value.to_owned())),
                _ => bail!("\"{part}\" is no option: write name=value"),
            }
        }
        Ok(Self { label: label.to_owned(), kind, options })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_behind_colons_become_those_of_the_index() {
        let method: Method = "hnsw:m=24:ef_construction=100".parse().unwrap();
        assert_eq!(
            method.create_index("item", Metric::Cosine),
            "CREATE INDEX item_hnsw_m_24_ef_construction_100 ON item USING hnsw (embedding vector_cosine_ops) \
             WITH (m = 24, ef_construction = 100)"
        );
        let plain: Method = "usearch".parse().unwrap();
        assert_eq!(
            plain.create_index("item", Metric::L2),
            "CREATE INDEX item_usearch ON item USING usearch (embedding vector_l2_ops)"
        );
    }

    #[test]
    fn what_is_no_method_or_no_option_is_refused() {
        for wrong in ["", "ivfflat", "usearch:", "usearch:scalar", "usearch:scalar=", "hnsw:m=1);DROP TABLE item"] {
            assert!(wrong.parse::<Method>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn eight_bits_are_for_cosines_only() {
        let bytes: Method = "usearch:connectivity=24:scalar=i8".parse().unwrap();
        assert!(bytes.takes(Metric::Cosine) && !bytes.takes(Metric::L2) && !bytes.takes(Metric::InnerProduct));
    }
}
