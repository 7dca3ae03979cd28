//! MovieLens as GroupLens distributes it: `ratings.dat` with `movies.dat` (1M and 10M), `u.data` with `u.item` (100K).

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::{Dataset, Interaction, Item};

/// The genre columns of `u.item`, in order (its README).
const GENRES: [&str; 19] = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
];
/// Where the genre columns begin: after id, title, two dates and a link.
const FIRST_GENRE: usize = 5;

/// `user::item::rating::time` and `item::title::genre|genre`.
pub(super) fn load_dat(folder: &Path) -> Result<Dataset> {
    let items = lines(&folder.join("movies.dat"), "::", |fields| {
        let [id, title, genres] = fields else { return None };
        let attributes = genres.split('|').filter(|&genre| genre != "(no genres listed)").map(str::to_owned).collect();
        Some(Item { item_id: id.parse().ok()?, title: (*title).to_owned(), attributes, embedding: None })
    })?;
    Ok(Dataset { interactions: lines(&folder.join("ratings.dat"), "::", rating)?, items, ..Dataset::default() })
}

/// `user item rating time` by tabs and `item|title|…|19 flags`.
pub(super) fn load_u_data(folder: &Path) -> Result<Dataset> {
    let items = lines(&folder.join("u.item"), "|", |fields| {
        let flags = fields.get(FIRST_GENRE..FIRST_GENRE + GENRES.len())?;
        let attributes =
            GENRES.iter().zip(flags).filter(|(_, flag)| **flag == "1").map(|(name, _)| (*name).to_owned()).collect();
        Some(Item { item_id: fields[0].parse().ok()?, title: fields[1].to_owned(), attributes, embedding: None })
    })?;
    Ok(Dataset { interactions: lines(&folder.join("u.data"), "\t", rating)?, items, ..Dataset::default() })
}

fn rating(fields: &[&str]) -> Option<Interaction> {
    let [user, item, rating, at] = fields else { return None };
    Some(Interaction {
        user_id: user.parse().ok()?,
        item_id: item.parse().ok()?,
        at: Some(at.parse().ok()?),
        position: None,
        rating: Some(rating.parse().ok()?),
    })
}

/// The rows of a file in ISO 8859-1, whose bytes are the first 256 code points.
fn lines<T>(path: &Path, separator: &str, parse: impl Fn(&[&str]) -> Option<T>) -> Result<Vec<T>> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            let fields: Vec<&str> = line.split(separator).collect();
            parse(&fields).ok_or_else(|| anyhow!("{} line {}: not a MovieLens row", path.display(), number + 1))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn loaded(name: &str, files: &[(&str, &[u8])]) -> Result<Dataset> {
        let folder = std::env::temp_dir().join(format!("pgrec-movielens-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        let data = Dataset::load(&folder);
        std::fs::remove_dir_all(folder).unwrap();
        data
    }

    #[test]
    fn the_million_is_read_with_latin_1_titles() {
        let data = loaded(
            "dat",
            &[
                ("ratings.dat", b"1::1193::5::978300760\n1::661::3::978302109\n"),
                ("movies.dat", b"73::Mis\xe9rables, Les (1995)::Drama|Musical\n"),
            ],
        )
        .unwrap();
        assert_eq!(data.items[0].title, "Misérables, Les (1995)");
        assert_eq!(data.items[0].attributes, ["Drama", "Musical"]);
        assert_eq!((data.interactions[0].item_id, data.interactions[0].at), (1193, Some(978_300_760)));
    }

    #[test]
    fn the_hundred_thousand_has_its_genres_as_flags() {
        let flags = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0";
        let items = format!("1|Toy Story (1995)|01-Jan-1995||http://x|{flags}\n");
        let data = loaded("u", &[("u.data", b"196\t242\t3\t881250949\n"), ("u.item", items.as_bytes())]).unwrap();
        assert_eq!(data.items[0].attributes, ["Animation", "Children's", "Comedy"]);
        assert_eq!(data.interactions[0].rating, Some(3.0));
    }

    #[test]
    fn a_row_of_another_format_is_named() {
        let error =
            loaded("bad", &[("ratings.dat", b"1::2::3::4\nuserId,movieId\n"), ("movies.dat", b"")]).unwrap_err();
        assert!(error.to_string().contains("ratings.dat line 2"), "{error}");
    }
}
