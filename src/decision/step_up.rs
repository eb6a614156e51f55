//! Clerk's reverification ("step-up"): `@clerk/shared`, `authorization.ts`.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

use crate::{
    explain::{Rule, Steps},
    identity::{FactorAge, FactorAges},
    reason::Reason,
};

/// Which factor must have been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The first.
    FirstFactor,
    /// The second; the first where there is no second.
    SecondFactor,
    /// Both; the first alone where there is no second.
    MultiFactor,
}

impl Level {
    /// Clerk's name, such as `second_factor`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstFactor => "first_factor",
            Self::SecondFactor => "second_factor",
            Self::MultiFactor => "multi_factor",
        }
    }
}

/// Clerk's presets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Both factors within 10 minutes.
    StrictMfa,
    /// The second factor within 10 minutes.
    Strict,
    /// The second factor within 60 minutes.
    Moderate,
    /// The second factor within 24 hours.
    Lax,
}

impl From<Preset> for Reverification {
    fn from(preset: Preset) -> Self {
        let (level, minutes) = match preset {
            Preset::StrictMfa => (Level::MultiFactor, 10),
            Preset::Strict => (Level::SecondFactor, 10),
            Preset::Moderate => (Level::SecondFactor, 60),
            Preset::Lax => (Level::SecondFactor, 24 * 60),
        };
        Self {
            level,
            max_age: Duration::from_secs(minutes * 60),
        }
    }
}

/// How recently which factor must have been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reverification {
    level: Level,
    max_age: Duration,
}

/// A reverification that asks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidReverification {
    /// The limit is zero.
    #[error("the greatest age is zero; expected more than zero")]
    ZeroAge,
    /// The text has no form that is known.
    #[error(
        "expected strict_mfa, strict, moderate, lax, or LEVEL:MINUTES with a level of \
         first_factor, second_factor, multi_factor and minutes above zero, such as second_factor:15"
    )]
    Form,
}

impl Reverification {
    /// A level and a limit of one's own. The limit is exclusive and must be above zero.
    pub fn new(level: Level, max_age: Duration) -> Result<Self, InvalidReverification> {
        if max_age.is_zero() {
            return Err(InvalidReverification::ZeroAge);
        }
        Ok(Self { level, max_age })
    }

    /// Which factor.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The limit on its age; an age of just as much is too old.
    pub const fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Strictly below the limit: an age of ten minutes fails a limit of ten.
    fn permits(&self, age: FactorAge) -> bool {
        self.max_age.as_secs_f64() > age.minutes() * 60.0
    }
}

impl FromStr for Reverification {
    type Err = InvalidReverification;

    fn from_str(text: &str) -> Result<Self, InvalidReverification> {
        let preset = match text {
            "strict_mfa" => Preset::StrictMfa,
            "strict" => Preset::Strict,
            "moderate" => Preset::Moderate,
            "lax" => Preset::Lax,
            _ => {
                let (level, minutes) = text.split_once(':').ok_or(InvalidReverification::Form)?;
                let level = [Level::FirstFactor, Level::SecondFactor, Level::MultiFactor]
                    .into_iter()
                    .find(|known| known.name() == level)
                    .ok_or(InvalidReverification::Form)?;
                let minutes: u32 = minutes.parse().map_err(|_| InvalidReverification::Form)?;
                return Self::new(level, Duration::from_secs(u64::from(minutes) * 60));
            }
        };
        Ok(preset.into())
    }
}

impl fmt::Display for Reverification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {:?}", self.level.name(), self.max_age)
    }
}

/// Whether the factors' ages meet what was asked; a token without ages never does.
pub fn check(
    asked: Option<Reverification>,
    ages: Option<FactorAges>,
    steps: &mut Steps,
) -> Result<(), Reason> {
    let Some(asked) = asked else {
        steps.skipped(Rule::Reverification, || "not asked for");
        return Ok(());
    };
    if ages.is_some_and(|ages| is_met(&asked, ages)) {
        steps.passed(Rule::Reverification, || format!("{asked}: {}", shown(ages)));
        Ok(())
    } else {
        steps.failed(Rule::Reverification, || format!("{asked}: {}", shown(ages)));
        Err(Reason::ReverificationRequired)
    }
}

fn is_met(asked: &Reverification, ages: FactorAges) -> bool {
    let FactorAges { first, second } = ages;
    match (asked.level, first, second) {
        (_, None, None) => false,
        // Without a second factor Clerk takes the first for it.
        (_, Some(first), None) => asked.permits(first),
        (Level::FirstFactor | Level::MultiFactor, None, Some(_)) => false,
        (Level::FirstFactor, Some(first), Some(_)) => asked.permits(first),
        (Level::SecondFactor, _, Some(second)) => asked.permits(second),
        (Level::MultiFactor, Some(first), Some(second)) => {
            asked.permits(first) && asked.permits(second)
        }
    }
}

fn shown(ages: Option<FactorAges>) -> String {
    let minutes = |age: Option<FactorAge>| {
        age.map_or("never".to_owned(), |age| {
            format!("{} minutes before iat", age.minutes())
        })
    };
    match ages {
        None => "the token does not say when a factor was verified (no fva)".to_owned(),
        Some(FactorAges { first, second }) => {
            format!(
                "first factor {}, second factor {}",
                minutes(first),
                minutes(second)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(first: f64, second: f64) -> Option<FactorAges> {
        Some(FactorAges {
            first: FactorAge::from_minutes(first),
            second: FactorAge::from_minutes(second),
        })
    }

    fn passes(asked: &str, ages: Option<FactorAges>) -> bool {
        let asked = asked.parse().expect("a reverification");
        check(Some(asked), ages, &mut Steps::off()).is_ok()
    }

    #[test]
    fn each_level_looks_at_its_factors() {
        for (first, second, by_first, by_second, by_both) in [
            (-1.0, -1.0, false, false, false),
            (5.0, -1.0, true, true, true), // no second factor: the first counts for it
            (15.0, -1.0, false, false, false),
            (-1.0, 5.0, false, true, false),
            (5.0, 5.0, true, true, true),
            (5.0, 15.0, true, false, false),
            (15.0, 5.0, false, true, false), // the first is not looked at
            (15.0, 15.0, false, false, false),
        ] {
            let ages = ages(first, second);
            assert_eq!(
                passes("first_factor:10", ages),
                by_first,
                "first of {ages:?}"
            );
            assert_eq!(
                passes("second_factor:10", ages),
                by_second,
                "second of {ages:?}"
            );
            assert_eq!(passes("multi_factor:10", ages), by_both, "both of {ages:?}");
        }
    }

    #[test]
    fn the_limit_itself_is_too_old() {
        for (preset, minutes) in [("strict", 10.0), ("moderate", 60.0), ("lax", 1440.0)] {
            assert!(passes(preset, ages(0.0, minutes - 1.0)), "{preset}");
            assert!(!passes(preset, ages(0.0, minutes)), "{preset}");
        }
        assert!(passes("strict_mfa", ages(9.0, 9.0)));
        assert!(!passes("strict_mfa", ages(10.0, 9.0)));
    }

    #[test]
    fn a_token_that_does_not_say_fails() {
        assert!(!passes("lax", None));
        assert!(check(None, None, &mut Steps::off()).is_ok());
    }

    #[test]
    fn a_limit_of_zero_is_refused() {
        assert_eq!(
            Reverification::new(Level::FirstFactor, Duration::ZERO),
            Err(InvalidReverification::ZeroAge)
        );
        for bad in [
            "",
            "loose",
            "first_factor",
            "first_factor:0",
            "first_factor:-1",
            "x:1",
        ] {
            assert!(bad.parse::<Reverification>().is_err(), "{bad}");
        }
    }
}
