//! What the demo shows at its end: three users, then how good every model is.

use anyhow::Result;

use super::DATABASE;
use crate::cluster::Cluster;
use crate::progress::Progress;

const MODELS: &str = include_str!("sql/models.sql");
const USERS: &str = include_str!("sql/users.sql");
const NEXT: &str = include_str!("sql/next.sql");
const EVALUATE: &str = include_str!("sql/evaluate.sql");

pub(super) fn show(cluster: &Cluster, progress: &Progress) -> Result<()> {
    let models = lines(cluster, MODELS)?;
    let headings: Vec<String> = models.iter().map(|model| format!("next, by {model}")).collect();
    for user in lines(cluster, USERS)? {
        let mut variables = vec![("user_id", user.as_str())];
        let names = [("first", "first_heading"), ("second", "second_heading")];
        for ((model, heading), (name, title)) in models.iter().zip(&headings).zip(names) {
            variables.extend([(name, model.as_str()), (title, heading)]);
        }
        let table = cluster.psql_tables(DATABASE, NEXT, &variables)?;
        progress.say(&format!("\nUser {user}\n{}", table.trim_end()));
    }
    progress.say("\nThe last interaction of every user, looked for among all items that are new to that user");
    let table = progress.step("measuring", |_| cluster.psql_tables(DATABASE, EVALUATE, &[]))?;
    progress.say(&format!("\n{}", table.trim_end()));
    Ok(())
}

fn lines(cluster: &Cluster, query: &str) -> Result<Vec<String>> {
    Ok(cluster.psql_in(DATABASE, query)?.lines().map(str::to_owned).collect())
}
