//! The kernels' sources and their variants.

/// What all programs begin with.
pub(crate) const COMMON: &str = include_str!("../../cuda/device.cuh");

/// A file of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub name: &'static str,
    /// What it shares with other files.
    pub shared: &'static str,
    pub text: &'static str,
}

macro_rules! text_of {
    () => {
        ""
    };
    ($file:literal) => {
        include_str!(concat!("../../cuda/", $file))
    };
}

macro_rules! sources {
    ($($constant:ident = $file:literal $(after $shared:literal)?,)*) => {
        impl Source {
            $(pub(crate) const $constant: Self =
                Self {
                    name: $file,
                    shared: text_of!($($shared)?),
                    text: include_str!(concat!("../../cuda/", $file, ".cu")),
                };)*
        }
    };
}

sources! {
    ATTENTION = "attention" after "attention.cuh",
    LAST_ATTENTION = "last_attention" after "attention.cuh",
    LINEAR = "linear",
    ROWS = "rows",
    TOP_K = "top_k",
}

/// One kernel of a source in one variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Program {
    pub source: Source,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Macros and their values.
    pub variant: Vec<(&'static str, u32)>,
}

impl Program {
    pub(crate) fn new(source: Source, kernel: &'static str, variant: &[(&'static str, u32)]) -> Self {
        Self { source, kernel, variant: variant.to_vec() }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> String {
        let Source { name, shared, text } = self.source;
        format!("{COMMON}\n{shared}\n#line 1 \"{name}.cu\"\n{text}")
    }

    /// The macros as a compiler takes them.
    pub(crate) fn macros(&self) -> impl Iterator<Item = String> {
        self.variant.iter().map(|(name, value)| format!("-D{name}={value}"))
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.source.name, self.kernel)?;
        self.variant.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}
