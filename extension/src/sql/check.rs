//! `rec_check`: what is wrong or could be better, with what to do.

use pgrx::pg_extern;
use pgrx::prelude::*;

use super::bind::{index_remedy, uses_index};
use crate::catalog::recommender::{self, Recommender};
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
