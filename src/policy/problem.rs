use std::fmt;

use serde_saphyr::Location;

/// One thing that is wrong with a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The line, from 1; `None` where it is about the whole file.
    pub line: Option<u64>,
    /// The column, from 1.
    pub column: Option<u64>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl PolicyProblem {
    pub(super) fn new(location: Option<&Location>, message: impl Into<String>) -> Self {
        Self {
            line: location.map(Location::line),
            column: location.map(Location::column),
            message: message.into(),
        }
    }
}

/// `line 3, column 5: …`.
impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a policy, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblems(Vec<PolicyProblem>);

impl PolicyProblems {
    pub(super) fn new(mut problems: Vec<PolicyProblem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self(problems)
    }

    /// Each, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &PolicyProblem> {
        self.0.iter()
    }
}

impl fmt::Display for PolicyProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyProblems {}
