//! Folders of `interactions.tsv.gz` and, where there are, `items.tsv.gz`, `text_vectors_384.npy` (a row an item there),
//! `cf_vectors_32d.npy` (row number = item id), `item_tags.tsv.gz` with `tags.tsv.gz`, `sasrec_ids.tsv.gz`,
//! `letter_semantic_ids.tsv.gz`; or of `searches_train.tsv.gz` with `queries.tsv.gz` and, where there is one,
//! `query_vectors_384.npy` (a row a query there): tab-separated, gzip, one header line that names the columns.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use flate2::read::MultiGzDecoder;

use super::{Dataset, Interaction, Item, Search, SearchQuery, npy};

/// How much of a long text serves as a title.
const TITLE_CHARACTERS: usize = 80;

pub(super) fn load(folder: &Path) -> Result<Dataset> {
    let mut data = Dataset::default();
    rows(&folder.join("interactions.tsv.gz"), |row| {
        data.interactions.push(interaction(row)?);
        Ok(())
    })?;
    let items = folder.join("items.tsv.gz");
    if items.is_file() {
        rows(&items, |row| {
            data.items.push(item(row)?);
            Ok(())
        })?;
        let vectors = folder.join("text_vectors_384.npy");
        if vectors.is_file() {
            let vectors = npy::read(&vectors)?;
            if vectors.len() != data.items.len() {
                bail!("{} has {} vectors for {} items", folder.display(), vectors.len(), data.items.len());
            }
            data.items.iter_mut().zip(vectors).for_each(|(item, vector)| item.embedding = Some(vector));
        }
    }
    let vectors = folder.join("cf_vectors_32d.npy");
    if vectors.is_file() && data.items.is_empty() {
        let item = |(item_id, vector)| Item { item_id, embedding: Some(vector), ..Item::default() };
        data.items = (0..).zip(npy::read(&vectors)?).map(item).collect();
    }
    let tags = folder.join("item_tags.tsv.gz");
    if tags.is_file() && data.items.is_empty() {
        data.items = tagged(&tags, &folder.join("tags.tsv.gz"))?;
    }
    let codes = folder.join("letter_semantic_ids.tsv.gz");
    if codes.is_file() {
        rows(&codes, |row| {
            data.codes.push((row.number("item_id")?, row.codes()?));
            Ok(())
        })?;
    }
    let numbering = folder.join("sasrec_ids.tsv.gz");
    if numbering.is_file() {
        rows(&numbering, |row| {
            data.checkpoint_rows.push((row.number("row")?, row.number("item_id")?));
            Ok(())
        })?;
    }
    Ok(data)
}

/// Searches whose users and items have texts for ids: they are numbered in the order of these. Interactions are the distinct
/// pairs of a user and an item, in the order in which they first come.
pub(super) fn load_searches(folder: &Path) -> Result<Dataset> {
    let mut data = Dataset::default();
    let mut queries = HashMap::new();
    rows(&folder.join("queries.tsv.gz"), |row| {
        queries.insert(row.number("query_id")?, data.queries.len());
        data.queries.push(SearchQuery { text: row.text("query").unwrap_or_default().to_owned(), vector: None });
        Ok(())
    })?;
    let vectors = folder.join("query_vectors_384.npy");
    if vectors.is_file() {
        let vectors = npy::read(&vectors)?;
        if vectors.len() != data.queries.len() {
            bail!("{} has {} vectors for {} queries", folder.display(), vectors.len(), data.queries.len());
        }
        data.queries.iter_mut().zip(vectors).for_each(|(query, vector)| query.vector = Some(vector));
    }
    let mut read: Vec<(String, String, usize)> = Vec::new();
    rows(&folder.join("searches_train.tsv.gz"), |row| {
        let id = |column: &str| row.text(column).map(str::to_owned).ok_or_else(|| anyhow!("no {column}"));
        let query = row.number("query_id")?;
        let query = *queries.get(&query).ok_or_else(|| anyhow!("query {query} has no text"))?;
        read.push((id("user_id")?, id("item_id")?, query));
        Ok(())
    })?;
    let users = numbered(read.iter().map(|(user, ..)| user.as_str()));
    let items = numbered(read.iter().map(|(_, item, _)| item.as_str()));
    let mut seen = HashSet::new();
    for (user, item, query) in &read {
        let (user_id, item_id) = (users[user.as_str()], items[item.as_str()]);
        data.searches.push(Search { user_id, item_id, query: *query });
        if seen.insert((user_id, item_id)) {
            data.interactions.push(Interaction { user_id, item_id, at: None, position: None, rating: None });
        }
    }
    let named = |(title, item_id): (&str, i64)| Item { item_id, title: title.to_owned(), ..Item::default() };
    data.items = items.into_iter().map(named).collect();
    data.items.sort_by_key(|item| item.item_id);
    Ok(data)
}

/// Texts by their place in their order, from 0.
fn numbered<'a>(texts: impl Iterator<Item = &'a str>) -> HashMap<&'a str, i64> {
    let mut texts: Vec<&str> = texts.collect();
    texts.sort_unstable();
    texts.dedup();
    texts.into_iter().zip(0..).collect()
}

/// Items that nothing is known of but the tags that somebody gave them.
fn tagged(pairs: &Path, names: &Path) -> Result<Vec<Item>> {
    let mut texts = HashMap::new();
    rows(names, |row| {
        texts.insert(row.number("tag_id")?, row.text("tag").unwrap_or_default().to_owned());
        Ok(())
    })?;
    let mut items: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    rows(pairs, |row| {
        let tag = row.number("tag_id")?;
        let text = texts.get(&tag).ok_or_else(|| anyhow!("tag {tag} has no name"))?;
        items.entry(row.number("item_id")?).or_default().push(text.clone());
        Ok(())
    })?;
    Ok(items.into_iter().map(|(item_id, attributes)| Item { item_id, attributes, ..Item::default() }).collect())
}

fn interaction(row: &Row) -> Result<Interaction> {
    Ok(Interaction {
        user_id: row.number("user_id")?,
        item_id: row.number("item_id")?,
        at: row.optional("unix_time")?,
        position: row.optional("position")?,
        rating: row.optional("rating")?,
    })
}

fn item(row: &Row) -> Result<Item> {
    let title = match (row.text("title"), row.text("year"), row.text("text"), row.text("asin")) {
        (Some(title), Some(year), ..) => format!("{title} ({year})"),
        (Some(title), ..) => title.to_owned(),
        (None, _, Some(text), _) => text.chars().take(TITLE_CHARACTERS).collect(),
        (None, _, None, asin) => asin.unwrap_or_default().to_owned(),
    };
    let labels = row.text("genres").or_else(|| row.text("attributes")).unwrap_or_default();
    Ok(Item {
        item_id: row.number("item_id")?,
        title,
        attributes: labels.split('|').filter(|label| !label.is_empty()).map(str::to_owned).collect(),
        embedding: None,
    })
}

/// One line with the names of its columns.
struct Row<'a> {
    header: &'a [String],
    fields: Vec<&'a str>,
}

impl Row<'_> {
    /// The column's text; `None` when the file has no such column or the field is empty.
    fn text(&self, column: &str) -> Option<&str> {
        let place = self.header.iter().position(|name| name == column)?;
        self.fields.get(place).copied().filter(|field| !field.is_empty())
    }

    fn optional<T: std::str::FromStr>(&self, column: &str) -> Result<Option<T>> {
        self.text(column)
            .map(|text| text.parse().map_err(|_| anyhow!("column {column}: \"{text}\" is no number")))
            .transpose()
    }

    /// The codes in `code1`, `code2`, …, which look like `<a_12>`.
    fn codes(&self) -> Result<Vec<u16>> {
        let code = |text: &str| {
            let digits = text.trim_matches(['<', '>']).split_once('_').map_or(text, |(_, digits)| digits);
            digits.parse().map_err(|_| anyhow!("\"{text}\" is no code"))
        };
        (1..).map_while(|level| self.text(&format!("code{level}"))).map(code).collect()
    }

    fn number(&self, column: &str) -> Result<i64> {
        self.optional(column)?.ok_or_else(|| anyhow!("no {column}"))
    }
}

/// Calls `take` with every row of a compressed table.
fn rows(path: &Path, mut take: impl FnMut(&Row) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut reader = BufReader::new(MultiGzDecoder::new(BufReader::new(file)));
    let mut header = Vec::new();
    let mut line = String::new();
    for number in 1_usize.. {
        line.clear();
        let at = || format!("{} line {number}", path.display());
        if reader.read_line(&mut line).with_context(at)? == 0 {
            break;
        }
        let fields: Vec<&str> = line.trim_end_matches(['\n', '\r']).split('\t').collect();
        if number == 1 {
            header = fields.into_iter().map(str::to_owned).collect();
        } else {
            take(&Row { header: &header, fields }).with_context(at)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("pgrec-shared-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            let file = File::create(folder.join(name)).unwrap();
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            gzip.write_all(text.as_bytes()).unwrap();
            gzip.finish().unwrap();
        }
        folder
    }

    fn loaded(name: &str, files: &[(&str, &str)]) -> Result<Dataset> {
        let folder = folder(name, files);
        let data = Dataset::load(&folder);
        std::fs::remove_dir_all(folder).unwrap();
        data
    }

    #[test]
    fn columns_are_found_by_name_and_no_time_is_invented() {
        let data = loaded(
            "names",
            &[
                ("interactions.tsv.gz", "item_id\tuser_id\tposition\n5\t1\t0\n6\t1\t1\n"),
                ("items.tsv.gz", "item_id\ttitle\tyear\tgenres\n5\tHeat\t1995\tAction|Crime\n6\tUp\t\t\n"),
                ("sasrec_ids.tsv.gz", "row\titem_id\n1\t6\n2\t5\n"),
                ("letter_semantic_ids.tsv.gz", "item_id\tcode1\tcode2\n5\t<a_128>\t<b_0>\n"),
            ],
        )
        .unwrap();
        let event = data.interactions[1];
        assert_eq!((event.user_id, event.item_id, event.position), (1, 6, Some(1)));
        assert_eq!((event.at, event.rating), (None, None));
        assert_eq!((data.items[0].title.as_str(), data.items[1].title.as_str()), ("Heat (1995)", "Up"));
        assert_eq!(data.items[0].attributes, ["Action", "Crime"]);
        assert!(data.items[1].attributes.is_empty());
        assert_eq!(data.checkpoint_rows, [(1, 6), (2, 5)]);
        assert_eq!(data.codes, [(5, vec![128, 0])]);
    }

    #[test]
    fn tags_are_attributes_by_their_names() {
        let pairs = ("item_tags.tsv.gz", "item_id\ttag_id\n7\t1\n7\t0\n2\t1\n");
        let events = ("interactions.tsv.gz", "user_id\titem_id\n0\t7\n0\t9\n");
        let data = loaded("tags", &[events, pairs, ("tags.tsv.gz", "tag_id\ttag\n0\tweb\n1\tgraphs\n")]).unwrap();
        let items: Vec<(i64, Vec<&str>)> = data
            .items
            .iter()
            .map(|item| (item.item_id, item.attributes.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(items, [(2, vec!["graphs"]), (7, vec!["graphs", "web"]), (9, vec![])]);
        assert!(loaded("nameless", &[events, pairs, ("tags.tsv.gz", "tag_id\ttag\n0\tweb\n")]).is_err());
    }

    #[test]
    fn searches_are_of_numbered_users_and_items() {
        let searches = "user_id\tquery_id\titem_id\nB\t7\tY\nA\t7\tX\nB\t3\tY\n";
        let queries = "query_id\tquery\n3\tblue hat\n7\tred shoe\n";
        let files = [("searches_train.tsv.gz", searches), ("queries.tsv.gz", queries)];
        let data = loaded("searches", &files).unwrap();
        let found: Vec<_> = data.searches.iter().map(|s| (s.user_id, s.item_id, s.query)).collect();
        assert_eq!(found, [(1, 1, 1), (0, 0, 1), (1, 1, 0)]);
        assert_eq!(data.interactions.iter().map(|e| (e.user_id, e.item_id)).collect::<Vec<_>>(), [(1, 1), (0, 0)]);
        assert_eq!(data.items.iter().map(|item| item.title.as_str()).collect::<Vec<_>>(), ["X", "Y"]);
        assert_eq!(data.queries[1].text, "red shoe");
        assert!(
            loaded("unasked", &[("searches_train.tsv.gz", searches), ("queries.tsv.gz", "query_id\tquery\n")]).is_err()
        );
    }

    #[test]
    fn times_and_ratings_are_kept_where_they_are() {
        let file = ("interactions.tsv.gz", "user_id\titem_id\tunix_time\trating\n196\t242\t881250949\t3\n");
        let data = loaded("times", &[file]).unwrap();
        let expected =
            Interaction { user_id: 196, item_id: 242, at: Some(881_250_949), position: None, rating: Some(3.0) };
        assert_eq!(data.interactions, [expected]);
        assert_eq!(data.users(), 1);
        assert_eq!(data.items, [Item { item_id: 242, ..Item::default() }], "touched items exist without a catalogue");
    }

    #[test]
    fn a_damaged_line_is_named() {
        let file = ("interactions.tsv.gz", "user_id\titem_id\n1\t2\n1\tx\n");
        let error = format!("{:#}", loaded("damaged", &[file]).unwrap_err());
        assert!(error.contains("interactions.tsv.gz line 3") && error.contains("\"x\" is no number"), "{error}");
    }

    #[test]
    fn an_unknown_folder_says_what_it_should_hold() {
        let error = format!("{:#}", loaded("unknown", &[("other.tsv.gz", "a\n")]).unwrap_err());
        assert!(error.contains("ratings.dat"), "{error}");
    }
}
