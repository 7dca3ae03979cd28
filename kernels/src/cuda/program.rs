//! The kernels' sources and their variants.

/// What all programs begin with.
pub(crate) const COMMON: &str = include_str!("../../cuda/device.cuh");

/// A file of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub name: &'static str,
    /// What it shares with other files.
    pub shared: &'static [&'static str],
    pub text: &'static str,
    /// The only compute capability it is for, whose own instructions it uses.
    pub only: Option<u32>,
}

macro_rules! sources {
    ($($constant:ident = $file:literal $(after $($shared:literal),+)? $(for $capability:literal)?;)*) => {
        impl Source {
            $(pub(crate) const $constant: Self =
                Self {
                    name: $file,
                    shared: &[$($(include_str!(concat!("../../cuda/", $shared))),+)?],
                    text: include_str!(concat!("../../cuda/", $file, ".cu")),
                    only: sources!(@only $($capability)?),
                };)*
        }
    };
    (@only) => { None };
    (@only $capability:literal) => { Some($capability) };
}

sources! {
    ATTENTION = "attention" after "attention.cuh", "mma_layout.cuh", "attention_products.cuh", "attention_tile.cuh";
    HOPPER_ATTENTION =
        "hopper_attention" after "attention.cuh", "mma_layout.cuh", "hopper.cuh", "attention_tile.cuh" for 90;
    LAST_ATTENTION = "last_attention" after "attention.cuh";
    LINEAR = "linear" after "linear.cuh";
    HOPPER_LINEAR = "hopper_linear" after "linear.cuh", "hopper.cuh", "hopper_linear.cuh" for 90;
    HOPPER_NORM_LINEAR = "hopper_norm_linear" after "linear.cuh", "hopper.cuh", "hopper_linear.cuh" for 90;
    ROWS = "rows";
    TOP_K = "top_k" after "top_k.cuh", "top_k_products.cuh";
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
        let Source { name, shared, text, .. } = self.source;
        format!("{COMMON}\n{}\n#line 1 \"{name}.cu\"\n{text}", shared.concat())
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
