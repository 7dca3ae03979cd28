//! What the generated shop sells.

/// A department: what one taste cluster is about.
pub(super) struct Theme {
    pub name: &'static str,
    pub nouns: &'static [&'static str],
    pub qualities: &'static [&'static str],
}

pub(super) const BRANDS: &[&str] = &[
    "Alder", "Borea", "Calla", "Dovre", "Elmhurst", "Fjell", "Gannet", "Hearth", "Isla", "Juno", "Kestrel", "Larch",
    "Merrow", "Nordlys", "Oriel", "Petrel", "Quill", "Rowan", "Sable", "Tarn",
];

pub(super) const COLOURS: &[&str] = &["black", "blue", "cream", "green", "grey", "ochre", "red", "white"];

pub(super) const THEMES: &[Theme] = &[
    Theme {
        name: "coffee",
        nouns: &["grinder", "espresso cup", "filter", "kettle", "dripper", "milk jug", "scale", "beans"],
        qualities: &["ceramic", "conical", "dark roast", "gooseneck", "hand-cranked", "light roast", "steel"],
    },
    Theme {
        name: "running",
        nouns: &["shoes", "shorts", "singlet", "socks", "head torch", "vest", "watch", "gels"],
        qualities: &["breathable", "carbon", "lightweight", "reflective", "seamless", "trail", "waterproof"],
    },
    Theme {
        name: "gardening",
        nouns: &["trowel", "secateurs", "seed tray", "gloves", "watering can", "trellis", "compost", "bulbs"],
        qualities: &["bamboo", "copper", "galvanised", "heritage", "organic", "peat-free", "winter"],
    },
    Theme {
        name: "photography",
        nouns: &["tripod", "lens", "strap", "filter", "camera bag", "film", "flash", "light meter"],
        qualities: &["carbon", "compact", "manual", "medium format", "neutral", "vintage", "wide-angle"],
    },
    Theme {
        name: "baking",
        nouns: &["loaf tin", "rolling pin", "proofing basket", "flour", "whisk", "cake stand", "scraper", "yeast"],
        qualities: &["beech", "cast-iron", "non-stick", "rye", "silicone", "sourdough", "stoneground"],
    },
    Theme {
        name: "cycling",
        nouns: &["saddle", "pump", "bottle", "chain", "pannier", "bell", "helmet", "tyre"],
        qualities: &["aero", "gravel", "leather", "puncture-proof", "touring", "tubeless", "urban"],
    },
    Theme {
        name: "knitting",
        nouns: &["yarn", "needles", "pattern book", "stitch markers", "wool", "blocking mat", "bobbin", "tote"],
        qualities: &["alpaca", "circular", "cotton", "hand-dyed", "merino", "mohair", "recycled"],
    },
    Theme {
        name: "camping",
        nouns: &["tent", "stove", "sleeping bag", "lantern", "hammock", "mug", "knife", "cool box"],
        qualities: &["double-walled", "down", "foldable", "four-season", "titanium", "two-person", "ultralight"],
    },
    Theme {
        name: "music",
        nouns: &["strings", "capo", "metronome", "cable", "stand", "reed", "drumsticks", "songbook"],
        qualities: &["acoustic", "braided", "bronze", "digital", "hickory", "nickel", "studio"],
    },
    Theme {
        name: "painting",
        nouns: &["brush set", "easel", "canvas", "palette", "sketchbook", "gouache", "varnish", "apron"],
        qualities: &["acid-free", "linen", "oil", "sable-hair", "student", "tabletop", "watercolour"],
    },
    Theme {
        name: "board games",
        nouns: &["strategy game", "dice set", "card sleeves", "puzzle", "party game", "expansion", "insert", "mat"],
        qualities: &["co-operative", "deluxe", "legacy", "pocket", "solo", "wooden", "word"],
    },
    Theme {
        name: "skincare",
        nouns: &["cleanser", "serum", "sunscreen", "balm", "clay mask", "toner", "night cream", "soap"],
        qualities: &["fragrance-free", "gentle", "mineral", "oat", "rose", "vitamin C", "vegan"],
    },
];
