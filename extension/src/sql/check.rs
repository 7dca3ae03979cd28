//! `rec_check`: what is wrong or could be better, with what to do.

use pgrx::pg_extern;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

use super::bind::{index_remedy, search_index, uses_index};
use crate::catalog::recommender::{self, Recommender, quoted};
use crate::catalog::{model, publication, training};
use crate::error::{Result, or_raise};
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::{relation, role};
use crate::storage::cache;
use crate::worker::queue;

/// A model is called stale when this share of the interactions is newer than it.
const STALE: f64 = 0.05;

struct Finding {
    subject: String,
    severity: &'static str,
    finding: String,
    remedy: String,
}

#[pg_extern(sql = false)]
fn rec_check(
    recommender: Option<String>,
) -> TableIterator<
    'static,
    (name!(subject, String), name!(severity, String), name!(finding, String), name!(remedy, String)),
> {
    let findings = or_raise(check(recommender.as_deref()));
    TableIterator::new(findings.into_iter().map(|f| (f.subject, f.severity.to_owned(), f.finding, f.remedy)))
}

fn check(name: Option<&str>) -> Result<Vec<Finding>> {
    training::sweep()?;
    queue::resume()?;
    let mut findings = Vec::new();
    let all = match name {
        Some(name) => vec![(*recommender::resolve(Mode::Write, Some(name))?).clone()],
        None => recommender::all()?,
    };
    for recommender in &all {
        relations(recommender, &mut findings)?;
        models(recommender, &mut findings)?;
        vectors(recommender, &mut findings)?;
        searching(recommender, &mut findings)?;
    }
    files(&mut findings)?;
    Ok(findings)
}

/// Published vectors of another model than the one that serves.
fn vectors(recommender: &Recommender, findings: &mut Vec<Finding>) -> Result<()> {
    let (Some(publication), Some(deployed)) =
        (publication::of(recommender), model::deployed(Mode::Write, recommender)?)
    else {
        return Ok(());
    };
    if publication.model != deployed.id {
        findings.push(Finding {
            subject: format!("vectors of {}", recommender.name),
            severity: "notice",
            finding: format!("those published are of another model than \"{}\", which is deployed", deployed.name),
            remedy: format!("SELECT * FROM rec_publish_vectors(recommender => '{}');", literal(&recommender.name)),
        });
    }
    Ok(())
}

/// Indexes that searching needs.
fn searching(recommender: &Recommender, findings: &mut Vec<Finding>) -> Result<()> {
    let mut missing = |subject: &str, finding: String, remedy: String| {
        let subject = format!("{subject} of {}", recommender.name);
        findings.push(Finding { subject, severity: "warning", finding, remedy });
    };
    if let (Some(items), Ok(Some(relation))) = (&recommender.items, recommender.items_name()) {
        if let Some(text) = &items.text
            && has_rows(items.relation)?
            && !has_index(items.relation, "gin", &gin_on(recommender, items.relation, text))?
        {
            missing(
                "texts",
                format!("no index finds words in {relation}: every search reads all of it"),
                format!(
                    "CREATE INDEX CONCURRENTLY ON {relation} USING gin ({});",
                    recommender.words_of(items.relation, text)
                ),
            );
        }
        if let Some(embedding) = &items.embedding
            && has_rows(items.relation)?
            && !has_index(items.relation, "%", &format!("({}%", quoted(embedding)))?
        {
            missing(
                "vectors",
                format!("no index finds what is near in {relation}: every search by a vector reads all of it"),
                format!(
                    "CREATE INDEX CONCURRENTLY ON {relation} USING usearch ({} vector_cosine_ops);",
                    quoted(embedding)
                ),
            );
        }
    }
    match (&recommender.searches, recommender.searches_name()) {
        (Some(_), Err(_)) => missing(
            "searches",
            "their relation has been dropped".into(),
            format!("SELECT rec_drop('{}'); and bind it anew", literal(&recommender.name)),
        ),
        (Some(searches), Ok(Some(relation)))
            if relation::may_select(searches.relation) && !uses_index(&relation, &searches.user)? =>
        {
            missing(
                "searches",
                format!("no index finds one user's searches in {relation}: models that look at them read all of it"),
                search_index(&relation, searches),
            );
        }
        _ => {}
    }
    Ok(())
}

/// What an index on the words of a text says it is on, as a pattern.
fn gin_on(recommender: &Recommender, relation: Oid, column: &str) -> String {
    match relation::column_type(relation, column).as_deref() {
        Some("tsvector") => format!("({}%", quoted(column)),
        _ => format!(
            "(to_tsvector({}%",
            pgrx::spi::quote_literal(recommender.search_config.rsplit('.').next().unwrap_or_default())
        ),
    }
}

/// Whether a relation is a view, or has an index of an access method whose definition goes on as a pattern says.
fn has_index(relation: Oid, method: &str, on: &str) -> Result<bool> {
    let found = spi::first(
        Mode::Write,
        "SELECT c.relkind NOT IN ('r', 'p', 'm') OR EXISTS (SELECT FROM pg_catalog.pg_index x \
         WHERE x.indrelid = c.oid AND x.indisvalid AND pg_catalog.pg_get_indexdef(x.indexrelid) LIKE '% USING ' || $2 || ' ' || $3) \
         FROM pg_catalog.pg_class c WHERE c.oid = $1",
        &[Arg::Oid(relation), Arg::Text(method), Arg::Text(on)],
        |row| row.need::<bool>(0),
    )?;
    Ok(found.unwrap_or(true))
}

/// From so many rows on an index is worth its name.
const MANY: f64 = 10_000.0;

fn has_rows(relation: Oid) -> Result<bool> {
    let sql = "SELECT reltuples::float8 FROM pg_catalog.pg_class WHERE oid = $1";
    let rows = spi::first(Mode::Write, sql, &[Arg::Oid(relation)], |row| row.need::<f64>(0))?;
    Ok(rows.is_some_and(|rows| rows >= MANY))
}

fn literal(name: &str) -> String {
    name.replace('\'', "''")
}

fn relations(recommender: &Recommender, findings: &mut Vec<Finding>) -> Result<()> {
    let subject = format!("recommender {}", recommender.name);
    let Ok(relation) = recommender.interactions_name() else {
        findings.push(Finding {
            subject,
            severity: "error",
            finding: "its interactions relation has been dropped".into(),
            remedy: format!("SELECT rec_drop('{}');", literal(&recommender.name)),
        });
        return Ok(());
    };
    if recommender.items_name().is_err() {
        findings.push(Finding {
            subject: subject.clone(),
            severity: "error",
            finding: "its items relation has been dropped".into(),
            remedy: format!("SELECT rec_drop('{}'); and bind it anew", literal(&recommender.name)),
        });
    }
    if role::find(&recommender.owner).is_none() {
        findings.push(Finding {
            subject: subject.clone(),
            severity: "error",
            finding: format!("its owner, role \"{}\", does not exist", recommender.owner),
            remedy: format!("UPDATE rec.recommender SET owner = '…' WHERE name = '{}';", literal(&recommender.name)),
        });
    }
    if !relation::may_select(recommender.interactions.relation) {
        return Ok(());
    }
    let interactions = &recommender.interactions;
    if !uses_index(&relation, &interactions.user)? {
        findings.push(Finding {
            subject,
            severity: "warning",
            finding: format!("no index finds one user's events in {relation}: every call reads all of it"),
            remedy: index_remedy(
                interactions.relation,
                &relation,
                &interactions.user,
                &interactions.item,
                &interactions.order,
            )?,
        });
    }
    Ok(())
}

fn models(recommender: &Recommender, findings: &mut Vec<Finding>) -> Result<()> {
    let estimated = spi::first(
        Mode::Write,
        "SELECT reltuples::float8 FROM pg_catalog.pg_class WHERE oid = $1",
        &[Arg::Oid(recommender.interactions.relation)],
        |row| row.need::<f64>(0),
    )?
    .unwrap_or(0.0);
    let rows = spi::query(
        Mode::Write,
        "SELECT name, state, coalesce(reason, ''), deployed, (cut->>'interactions')::float8, family \
         FROM rec.models WHERE recommender = $1 ORDER BY name",
        &[Arg::Text(&recommender.name)],
        |row| {
            Ok((
                row.need::<String>(0)?,
                row.need::<String>(1)?,
                row.need::<String>(2)?,
                row.need::<bool>(3)?,
                row.get::<f64>(4),
                row.need::<String>(5)?,
            ))
        },
    )?;
    let quoted = literal(&recommender.name);
    if !rows.iter().any(|(.., deployed, _, _)| *deployed) {
        findings.push(Finding {
            subject: format!("recommender {}", recommender.name),
            severity: "warning",
            finding: "no model is deployed".into(),
            remedy: format!("CALL rec_train('graph', recommender => '{quoted}', deploy => true);"),
        });
    }
    for (name, state, reason, deployed, trained_on, family) in rows {
        let subject = format!("model {name} of {}", recommender.name);
        if state == "failed" {
            findings.push(Finding {
                subject,
                severity: "notice",
                finding: format!("it failed: {reason}"),
                remedy: format!("SELECT rec_drop_model('{}', '{quoted}');", literal(&name)),
            });
        } else if let Some(trained_on) = trained_on.filter(|n| deployed && estimated > n * (1.0 + STALE)) {
            findings.push(Finding {
                subject,
                severity: "notice",
                finding: format!(
                    "it was trained on {trained_on:.0} interactions, and there are about {estimated:.0} now"
                ),
                remedy: format!("CALL rec_train('{family}', recommender => '{quoted}', deploy => true);"),
            });
        }
    }
    Ok(())
}

fn files(findings: &mut Vec<Finding>) -> Result<()> {
    let orphans = cache::orphans(Mode::Write)?;
    if let Some(first) = orphans.first() {
        findings.push(Finding {
            subject: "model cache".into(),
            severity: "notice",
            finding: format!(
                "{} cache files belong to no model and no index, such as {}",
                orphans.len(),
                first.display()
            ),
            remedy: "None needed: they are removed when the next file is written there.".into(),
        });
    }
    Ok(())
}
