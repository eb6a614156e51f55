//! `clerk-authz reconcile`

use std::fmt::Write;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::{
    DENIED, SUCCESS,
    mirror::{DatabaseArgs, Mirror},
    progress::Progress,
    until_signal,
};
use crate::{
    mirror::EntityKind,
    sync::{
        Drift, KindReport, ReconcileJob, ReconcileProgress, ReconcileStage, Reconciler, Report,
        process_holder,
    },
};

/// Compares all of Clerk with the mirror in the service's database, beside the service or without it.
///
/// Pages through Clerk's users, organizations and memberships, and reports what the mirror lacks
/// (missing), what it says of them that is older (stale), and what Clerk has no more (ghost). Changes
/// nothing, unless --apply says so. Takes of the budget for Clerk's API (CLERK_AUTHZ_API_BUDGET) only
/// what is above the reserve for checks. A run that broke off is gone on with for six hours.
#[derive(Args)]
#[command(after_help = "Example: clerk-authz reconcile --apply --format json\n\
                  It reads the service's settings from the environment: CLERK_PUBLISHABLE_KEY, CLERK_SECRET_KEY, CLERK_AUTHZ_DATABASE_URL.\n\
                  Exit codes: 0 in step, 1 drift was found, also where it was mended, 2 could not finish")]
pub(super) struct Reconcile {
    /// Mend what is found: every write is guarded by Clerk's times, as those of webhooks are
    #[arg(long)]
    apply: bool,
    /// How the report looks
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Reconcile {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let mirror = self.database.open_mirror().await?;
        let ended = self.reconcile(&mirror).await;
        mirror.store.close().await;
        ended
    }

    async fn reconcile(&self, mirror: &Mirror) -> anyhow::Result<u8> {
        let reconciler = Reconciler::new(
            std::sync::Arc::new(mirror.store.clone()),
            std::sync::Arc::clone(&mirror.clock),
        );
        let holder = process_holder();
        let job = ReconcileJob {
            instance: &mirror.instance,
            clerk: &mirror.clerk,
            apply: self.apply,
            holder: &holder,
        };
        let progress = Progress::new();
        let on_progress = |at: ReconcileProgress| {
            let label = match at.stage {
                ReconcileStage::Compares => format!("comparing {}", plural(at.kind)),
                ReconcileStage::Confirms => format!("asking for unseen {}", plural(at.kind)),
            };
            progress.set(&label, at.done, at.total);
        };
        let ended = tokio::select! {
            ended = reconciler.run(&job, &on_progress) => ended,
            stopped = until_signal() => {
                progress.finish();
                stopped?;
                reconciler.release(&job).await;
                bail!("stopped; the next run like this one goes on where it was, for six hours");
            }
        };
        progress.finish();
        let report = ended?;
        match self.format {
            Format::Table => anstream::print!("{}", table(&report)),
            Format::Json => anstream::println!("{}", as_json(&report, mirror)),
        }
        Ok(if report.is_in_step() { SUCCESS } else { DENIED })
    }
}

fn plural(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::User => "users",
        EntityKind::Organization => "organizations",
        EntityKind::Membership => "memberships",
    }
}

/// A row for each kind, then which they are, then how it ended.
fn table(report: &Report) -> String {
    let mut text = format!(
        "{:<14}{:>10}{:>10}{:>10}{:>8}{:>8}{:>10}{:>11}\n",
        "", "at Clerk", "in step", "missing", "stale", "ghost", "touched", "overtaken"
    );
    for kind in EntityKind::ALL {
        let of = report.kind(kind);
        let found = |drift| of.drift(drift).found;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:<14}{:>10}{:>10}{:>10}{:>8}{:>8}{:>10}{:>11}",
            plural(kind),
            of.at_clerk,
            of.in_step,
            found(Drift::Missing),
            found(Drift::Stale),
            found(Drift::Ghost),
            of.touched,
            of.overtaken
        );
    }
    for kind in EntityKind::ALL {
        for drift in Drift::ALL {
            let count = report.kind(kind).drift(drift);
            if count.found == 0 {
                continue;
            }
            let more = if count.found > count.examples.len() as u64 {
                ", …"
            } else {
                ""
            };
            let (kind, drift) = (plural(kind), drift.name());
            let examples = count.examples.join(", ");
            let _ = writeln!(text, "{drift} {kind}: {examples}{more}");
        }
    }
    let found: u64 = report.kinds.iter().map(KindReport::found).sum();
    let _ = match (found, report.applied) {
        (0, _) => writeln!(text, "in step"),
        (_, true) => writeln!(text, "drift: {found} found and mended"),
        (_, false) => writeln!(text, "drift: {found} found; mend it with --apply"),
    };
    text
}

fn as_json(report: &Report, mirror: &Mirror) -> Value {
    let kinds: Map<String, Value> = EntityKind::ALL
        .into_iter()
        .map(|kind| {
            let of = report.kind(kind);
            let mut value = json!({
                "at_clerk": of.at_clerk,
                "in_step": of.in_step,
                "touched": of.touched,
                "overtaken": of.overtaken,
            });
            for drift in Drift::ALL {
                let count = of.drift(drift);
                value[drift.name()] = json!({
                    "found": count.found,
                    "mended": count.mended,
                    "examples": count.examples,
                });
            }
            (kind.name().to_owned(), value)
        })
        .collect();
    json!({
        "instance": mirror.instance.as_str(),
        "started_at": report.started_at.to_string(),
        "ended_at": report.ended_at.to_string(),
        "in_step": report.is_in_step(),
        "applied": report.applied,
        "kinds": kinds,
    })
}
