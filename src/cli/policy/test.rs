//! `clerk-authz policy test`

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{
    super::{DENIED, FAILED, SUCCESS},
    read,
};
use crate::{
    authz::{Authorization, rehearse},
    explain::Steps,
    policy::{Case, Expected},
};

/// Runs the cases under `tests` by the code that the service decides with. Nobody is asked: what a
/// token says and what Clerk knows is written in each case.
#[derive(Args)]
#[command(
    after_help = "Example: clerk-authz policy test policy.yaml --format junit > report.xml\n\
                  Exit codes: 0 all as expected, 1 some are not, 2 the policy is wrong, cannot be read or has no tests"
)]
pub(super) struct Test {
    /// The policy
    file: PathBuf,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Junit,
}

/// A case and what became of it.
struct Outcome<'a> {
    case: &'a Case,
    answer: Authorization,
    took: Duration,
}

impl Test {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let Some((policy, cases)) = read(&self.file)? else {
            return Ok(FAILED);
        };
        anyhow::ensure!(
            !cases.is_empty(),
            "{} has no tests; write some under \"tests:\" (docs/policy.md)",
            self.file.display()
        );
        let mut outcomes = Vec::with_capacity(cases.len());
        for case in &cases {
            let started = Instant::now();
            let answer = rehearse(&policy, case, &mut Steps::off()).await;
            outcomes.push(Outcome {
                case,
                answer,
                took: started.elapsed(),
            });
        }
        match self.format {
            Format::Table => print_table(&self.file.display().to_string(), &outcomes),
            Format::Junit => {
                let report = junit(&self.file.display().to_string(), &outcomes);
                let text = report.to_string().context("cannot write the report")?;
                anstream::println!("{text}");
            }
        }
        let all_good = outcomes.iter().all(Outcome::is_as_expected);
        Ok(if all_good { SUCCESS } else { DENIED })
    }
}

impl Outcome<'_> {
    fn is_as_expected(&self) -> bool {
        let Expected {
            effect,
            reason,
            route,
        } = &self.case.expected;
        *effect == self.answer.outcome.effect()
            && reason.is_none_or(|reason| reason == self.answer.reason)
            && route
                .as_ref()
                .is_none_or(|route| Some(route) == self.answer.route.as_ref())
    }

    fn request(&self) -> String {
        let request = &self.case.request;
        format!("{} {}{}", request.method, request.host, request.path)
    }

    fn expected(&self) -> String {
        let expected = &self.case.expected;
        let reason = expected.reason.map_or("any reason", |reason| reason.name());
        let route = expected.route.as_deref().unwrap_or("any route");
        format!("{} {reason} by {route}", expected.effect.name())
    }

    fn found(&self) -> String {
        let Authorization {
            reason,
            route,
            outcome,
            ..
        } = &self.answer;
        let route = route.as_deref().unwrap_or("no route");
        format!("{} {reason} by {route}", outcome.effect().name())
    }
}

fn print_table(file: &str, outcomes: &[Outcome<'_>]) {
    let width = outcomes
        .iter()
        .map(|outcome| outcome.case.name.chars().count())
        .max()
        .unwrap_or_default();
    let mut differing = 0;
    for outcome in outcomes {
        let name = &outcome.case.name;
        if outcome.is_as_expected() {
            anstream::println!("✓ {name:<width$}  {}", outcome.found());
            continue;
        }
        differing += 1;
        anstream::println!(
            "✗ {name:<width$}  {file}:{}: {}\n    expected {}\n    found    {}",
            outcome.case.line,
            outcome.request(),
            outcome.expected(),
            outcome.found()
        );
    }
    let good = outcomes.len() - differing;
    anstream::println!("\n{good} as expected, {differing} not");
}

fn junit(file: &str, outcomes: &[Outcome<'_>]) -> Report {
    let mut suite = TestSuite::new(file);
    for outcome in outcomes {
        let status = match outcome.is_as_expected() {
            true => TestCaseStatus::success(),
            false => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(format!(
                    "{}: expected {}, found {}",
                    outcome.request(),
                    outcome.expected(),
                    outcome.found()
                ));
                status.set_description(format!("{file}:{}", outcome.case.line));
                status
            }
        };
        let mut case = TestCase::new(&*outcome.case.name, status);
        case.set_classname(file).set_time(outcome.took);
        suite.add_test_case(case);
    }
    let mut report = Report::new("clerk-authz policy test");
    report.add_test_suite(suite);
    report
}
