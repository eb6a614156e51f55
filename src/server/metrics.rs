//! Brings the rooms' counters together when metrics are asked for.

mod database;
mod doors;
mod upstreams;

use std::{fmt, sync::Arc};

use super::{
    callers::CallerRules,
    instances::InstanceReloads,
    mirror::MirrorKeepers,
    policies::{Kind, Policies},
    tls::ReloadedTls,
};
use crate::{
    authz::{Checker, FactCacheStats, Instance, RevocationStats, Verifier},
    door::grpc::CallStats,
    identity::{InstanceName, Timestamp},
    keys::{Clock, KeyringStats, KeysOf},
    mirror::{DirectoryStats, EntityKind},
    store::SqlStore,
    sync::{Drift, Ear, EventClass, InboxStats, Inboxes, RunOutcome, Watches},
    telemetry::{
        lines::LineStats,
        metrics::{self as catalogue, Metric, Source, Writer},
    },
    upstream_assertion::Assertions,
};

/// The commit that the binary was built of, where whoever built it said so.
const REVISION: &str = env!("BUILD_REVISION");

/// Where numbers come from.
pub(super) struct Sources {
    pub(super) checker: Arc<Checker>,
    pub(super) calls: Arc<CallStats>,
    /// Of the decision log, where there is one.
    pub(super) decisions: Option<Box<dyn Fn() -> LineStats + Send + Sync>>,
    pub(super) store: Option<SqlStore>,
    pub(super) inboxes: Option<Arc<Inboxes>>,
    pub(super) keepers: Option<MirrorKeepers>,
    pub(super) ear: Option<Arc<Ear>>,
    pub(super) watches: Option<Arc<Watches>>,
    pub(super) policies: Option<Arc<Policies>>,
    pub(super) assertions: Option<Arc<Assertions>>,
    pub(super) tls: Option<Arc<ReloadedTls>>,
    pub(super) callers: Option<Arc<CallerRules>>,
    pub(super) instance_reloads: Option<Arc<InstanceReloads>>,
    pub(super) clock: Clock,
}

pub(super) fn source(sources: Sources) -> Source {
    Box::new(move |writer| {
        let Sources {
            checker,
            calls,
            decisions,
            store,
            inboxes,
            keepers,
            ear,
            watches,
            policies,
            assertions,
            tls,
            callers,
            instance_reloads,
            clock,
        } = &sources;
        let build = [env!("CARGO_PKG_VERSION"), REVISION].map(str::to_owned);
        writer.write(catalogue::BUILD_INFO, [(build, 1.0)])?;
        doors::write(writer, calls)?;
        doors::write_callers(writer, callers.as_deref())?;
        doors::write_decisions(writer, decisions.as_ref().map(|stats| stats()))?;
        doors::write_otlp(writer)?;
        doors::write_tls(writer, tls.as_deref())?;
        database::write(writer, store.as_ref())?;
        let verifier = checker.verifier();
        let instances = verifier.instances();
        write_instance_reloads(writer, instance_reloads.as_deref())?;
        write_verifier(writer, verifier)?;
        write_memberships(writer, checker.stats())?;
        write_keys(writer, instances.all(), clock())?;
        write_directories(writer, instances.all())?;
        write_policies(writer, policies.as_deref())?;
        upstreams::write(writer, assertions.as_deref())?;
        write_revocations(writer, instances.all(), ear.as_deref(), clock())?;
        write_inboxes(writer, inboxes.as_deref(), clock())?;
        write_mirror(writer, keepers.as_ref())?;
        write_watches(writer, watches.as_deref())
    })
}

/// Counters above 2^53 lose their last digits; they are for rates.
const fn number(count: u64) -> f64 {
    count as f64
}

fn write_verifier(writer: &mut Writer<'_>, verifier: &Verifier) -> fmt::Result {
    let stats = verifier.stats();
    write_opaque_tokens(writer, stats.opaque)?;
    writer.write_one(catalogue::SIGNATURES, number(stats.signatures))?;
    writer.write_one(
        catalogue::FEATURES_OUT_OF_ORDER,
        number(stats.features_out_of_order),
    )?;
    writer.write_one(catalogue::TOKEN_CACHE_HITS, number(stats.cache.hits))?;
    writer.write_one(catalogue::TOKEN_CACHE_MISSES, number(stats.cache.misses))?;
    writer.write_one(
        catalogue::TOKEN_CACHE_EVICTIONS,
        number(stats.cache.evictions),
    )?;
    writer.write_one(catalogue::TOKEN_CACHE_ENTRIES, number(stats.cache.entries))?;
    writer.write_one(catalogue::TOKEN_CACHE_BYTES, number(stats.cache.bytes))
}

fn write_opaque_tokens(writer: &mut Writer<'_>, stats: FactCacheStats) -> fmt::Result {
    writer.write_one(catalogue::OPAQUE_TOKEN_CACHE_HITS, number(stats.hits))?;
    writer.write_one(catalogue::OPAQUE_TOKEN_CACHE_MISSES, number(stats.misses))?;
    writer.write_one(
        catalogue::OPAQUE_TOKEN_CACHE_EVICTIONS,
        number(stats.evictions),
    )?;
    writer.write_one(catalogue::OPAQUE_TOKEN_CACHE_ENTRIES, number(stats.entries))?;
    writer.write_one(catalogue::OPAQUE_TOKEN_CACHE_BYTES, number(stats.bytes))
}

fn write_memberships(writer: &mut Writer<'_>, stats: FactCacheStats) -> fmt::Result {
    writer.write_one(catalogue::MEMBERSHIP_CACHE_HITS, number(stats.hits))?;
    writer.write_one(catalogue::MEMBERSHIP_CACHE_MISSES, number(stats.misses))?;
    writer.write_one(
        catalogue::MEMBERSHIP_CACHE_EVICTIONS,
        number(stats.evictions),
    )?;
    writer.write_one(catalogue::MEMBERSHIP_CACHE_ENTRIES, number(stats.entries))?;
    writer.write_one(catalogue::MEMBERSHIP_CACHE_BYTES, number(stats.bytes))
}

fn write_keys(writer: &mut Writer<'_>, instances: &[Arc<Instance>], now: Timestamp) -> fmt::Result {
    let all: Vec<(String, bool, KeyringStats)> = instances
        .iter()
        .flat_map(|instance| {
            let own = (KeysOf::instance(&instance.name), &instance.keyring);
            let providers = instance.providers.iter().map(|provider| {
                let name = KeysOf::provider(&instance.name, &provider.rules.name);
                (name, &provider.keyring)
            });
            std::iter::once(own).chain(providers)
        })
        .map(|(keys_of, keyring)| {
            (
                keys_of.to_string(),
                keyring.is_usable(now),
                keyring.stats(now),
            )
        })
        .collect();
    let mut each = |metric: Metric, value: fn(&KeyringStats) -> Option<f64>| {
        let values = all
            .iter()
            .filter_map(|(name, _, stats)| Some(([name.clone()], value(stats)?)));
        writer.write(metric, values)
    };
    each(catalogue::KEYS, |stats| Some(number(stats.keys)))?;
    each(catalogue::KEYS_AGE, |stats| {
        stats.age.map(|age| age.as_secs_f64())
    })?;
    each(catalogue::KEYS_LAST_SUCCESS, |stats| {
        stats
            .last_success
            .map(|at| at.unix_millis() as f64 / 1_000.0)
    })?;
    each(catalogue::KEYS_FETCHES_REFUSED, |stats| {
        Some(number(stats.refused_fetches))
    })?;
    each(catalogue::KEYS_SNAPSHOT_FAILURES, |stats| {
        Some(number(stats.snapshot_failures))
    })?;
    let usable = all
        .iter()
        .map(|(name, usable, _)| ([name.clone()], f64::from(u8::from(*usable))));
    writer.write(catalogue::KEYS_USABLE, usable)?;
    let fetches = all.iter().flat_map(|(name, _, stats)| {
        stats.fetches.iter().map(move |(outcome, count)| {
            ([name.clone(), outcome.name().to_owned()], number(*count))
        })
    });
    writer.write(catalogue::KEYS_FETCHES, fetches)?;
    let ignored = all.iter().flat_map(|(name, _, stats)| {
        stats
            .ignored
            .iter()
            .map(move |(cause, count)| ([name.clone(), cause.name().to_owned()], number(*count)))
    });
    writer.write(catalogue::KEYS_IGNORED, ignored)
}

fn write_directories(writer: &mut Writer<'_>, instances: &[Arc<Instance>]) -> fmt::Result {
    let all: Vec<(String, DirectoryStats)> = instances
        .iter()
        .filter_map(|instance| {
            let directory = instance.directory.as_ref()?;
            Some((instance.name.to_string(), directory.stats()))
        })
        .collect();
    let requests = all.iter().flat_map(|(name, stats)| {
        stats
            .requests
            .iter()
            .map(move |(endpoint, outcome, count)| {
                let labels = [
                    name.clone(),
                    (*endpoint).to_owned(),
                    outcome.name().to_owned(),
                ];
                (labels, number(*count))
            })
    });
    writer.write(catalogue::CLERK_REQUESTS, requests)?;
    let durations = all.iter().flat_map(|(name, stats)| {
        let durations = stats.durations.iter();
        durations
            .map(|(endpoint, recorded)| ([name.clone(), (*endpoint).to_owned()], recorded.clone()))
    });
    writer.write_durations(catalogue::CLERK_REQUEST_DURATION, durations)?;
    let mut each = |metric: Metric, value: fn(&DirectoryStats) -> f64| {
        let values = all
            .iter()
            .map(|(name, stats)| ([name.clone()], value(stats)));
        writer.write(metric, values)
    };
    each(catalogue::CLERK_QUESTIONS_JOINED, |stats| {
        number(stats.joined)
    })?;
    each(catalogue::CLERK_QUESTIONS_HELD_BACK, |stats| {
        number(stats.held_back)
    })?;
    each(catalogue::CLERK_BUDGET_LEFT, |stats| stats.budget_left)?;
    each(catalogue::CLERK_BREAKER_OPEN, |stats| {
        f64::from(u8::from(stats.breaker_open))
    })
}

fn write_instance_reloads(
    writer: &mut Writer<'_>,
    reloads: Option<&InstanceReloads>,
) -> fmt::Result {
    let counts = reloads.into_iter().flat_map(|reloads| {
        let (applied, refused) = reloads.counts();
        [("applied", applied), ("refused", refused)]
            .map(|(outcome, count)| ([outcome.to_owned()], number(count)))
    });
    writer.write(catalogue::INSTANCE_RELOADS, counts)
}

fn write_policies(writer: &mut Writer<'_>, policies: Option<&Policies>) -> fmt::Result {
    let in_use = policies.into_iter().flat_map(|policies| {
        let gatekeeper = policies.gatekeeper();
        let shadow = gatekeeper.shadow().0;
        let in_force = Some((Kind::InForce, gatekeeper.policy()));
        in_force
            .into_iter()
            .chain(shadow.map(|policy| (Kind::Shadow, policy)))
    });
    let routes = in_use.map(|(kind, policy)| {
        let labels = [kind.name().to_owned(), policy.version().to_owned()];
        (labels, policy.routes().len() as f64)
    });
    writer.write(catalogue::POLICY_ROUTES, routes)?;
    let reloads = policies.into_iter().flat_map(|policies| {
        Kind::ALL.into_iter().flat_map(move |kind| {
            let (applied, refused) = policies.reloads(kind);
            [("applied", applied), ("refused", refused)].map(|(outcome, count)| {
                ([kind.name().to_owned(), outcome.to_owned()], number(count))
            })
        })
    });
    writer.write(catalogue::POLICY_RELOADS, reloads)?;
    let tried = policies.into_iter().flat_map(|policies| {
        let stats = policies.gatekeeper().shadow().1;
        [
            ("same", stats.same),
            ("different", stats.different),
            ("untold", stats.untold),
        ]
        .map(|(outcome, count)| ([outcome.to_owned()], number(count)))
    });
    writer.write(catalogue::POLICY_SHADOW, tried)?;
    let handshakes = policies.into_iter().flat_map(|policies| {
        let counts = policies.gatekeeper().handshakes().into_iter();
        counts.map(|(outcome, count)| ([outcome.name().to_owned()], number(count)))
    });
    writer.write(catalogue::HANDSHAKES, handshakes)
}

fn write_revocations(
    writer: &mut Writer<'_>,
    instances: &[Arc<Instance>],
    ear: Option<&Ear>,
    now: Timestamp,
) -> fmt::Result {
    let of = |instance: &Arc<Instance>| {
        let (revocations, ear) = (instance.revocations.as_ref()?, ear?);
        let newest = *ear.hear(&instance.name).borrow();
        let stats = revocations.stats(newest, ear.heard_until(), now);
        Some((instance.name.to_string(), stats))
    };
    let all: Vec<(String, RevocationStats)> = instances.iter().filter_map(of).collect();
    let counts = all.iter().flat_map(|(name, stats)| {
        [
            ("session", stats.sessions),
            ("user", stats.users),
            ("organization", stats.organizations),
            ("membership", stats.memberships),
        ]
        .map(|(subject, count)| ([name.clone(), subject.to_owned()], number(count)))
    });
    writer.write(catalogue::REVOCATIONS, counts)?;
    let lags = all
        .iter()
        .map(|(name, stats)| ([name.clone()], stats.lag.as_secs_f64()));
    writer.write(catalogue::REVOCATION_LAG, lags)?;
    let listening = ear.map(|ear| ([], f64::from(u8::from(ear.listens()))));
    writer.write::<[String; 0]>(catalogue::FEED_LISTENING, listening)
}

fn write_inboxes(
    writer: &mut Writer<'_>,
    inboxes: Option<&Inboxes>,
    now: Timestamp,
) -> fmt::Result {
    let all = inboxes.map(Inboxes::stats).unwrap_or_default();
    let labels = |name: &InstanceName, label: &str| [name.to_string(), label.to_owned()];
    let deliveries = all.iter().flat_map(|(name, stats)| {
        let counts = stats.deliveries.iter();
        counts.map(move |(outcome, count)| (labels(name, outcome.name()), number(*count)))
    });
    writer.write(catalogue::WEBHOOK_DELIVERIES, deliveries)?;
    let depth = all.iter().flat_map(|(name, stats)| {
        let counts = stats.depth.iter();
        counts.map(move |(state, count)| (labels(name, state.name()), number(*count)))
    });
    writer.write(catalogue::INBOX_MESSAGES, depth)?;
    let oldest = all.iter().filter(|(_, stats)| !stats.depth.is_empty());
    let oldest = oldest.map(|(name, stats)| {
        let age = stats.oldest_waiting.map(|at| now.since(at).as_secs_f64());
        ([name.to_string()], age.unwrap_or_default())
    });
    writer.write(catalogue::INBOX_OLDEST, oldest)?;
    let mut classes = |metric: Metric, counts: fn(&InboxStats) -> &[(EventClass, u64)]| {
        let values = all.iter().flat_map(|(name, stats)| {
            let counts = counts(stats).iter();
            counts.map(move |(class, count)| (labels(name, class.name()), number(*count)))
        });
        writer.write(metric, values)
    };
    classes(catalogue::INBOX_APPLIED, |stats| &stats.applied)?;
    classes(catalogue::INBOX_IGNORED, |stats| &stats.ignored)?;
    let mut each = |metric: Metric, value: fn(&InboxStats) -> u64| {
        let values = all
            .iter()
            .map(|(name, stats)| ([name.to_string()], number(value(stats))));
        writer.write(metric, values)
    };
    each(catalogue::INBOX_FAILURES, |stats| stats.failures)?;
    each(catalogue::INBOX_POISONED, |stats| stats.poisoned)?;
    let up = inboxes.map(|inboxes| ([], f64::from(u8::from(inboxes.store_answers()))));
    writer.write::<[String; 0]>(catalogue::DATABASE_UP, up)
}

fn write_mirror(writer: &mut Writer<'_>, keepers: Option<&MirrorKeepers>) -> fmt::Result {
    let stats = keepers.map(|keepers| keepers.nightly.stats());
    let runs = stats.iter().flat_map(|stats| &stats.runs);
    let runs = runs.map(|(outcome, count)| ([outcome.name().to_owned()], number(*count)));
    writer.write(catalogue::RECONCILE_RUNS, runs)?;
    let all = || stats.iter().flat_map(|stats| &stats.last_runs);
    let drift = all().flat_map(|(name, last)| {
        EntityKind::ALL.into_iter().flat_map(move |kind| {
            Drift::ALL.into_iter().filter_map(move |drift| {
                let labels = [name.as_str(), kind.name(), drift.name()].map(str::to_owned);
                Some((labels, number(last.found(kind, drift)?)))
            })
        })
    });
    writer.write(catalogue::RECONCILE_DRIFT, drift)?;
    let at = all().filter_map(|(name, last)| {
        let at = last.at()?.unix_millis() as f64 / 1_000.0;
        Some(([name.to_string()], at))
    });
    writer.write(catalogue::RECONCILE_LAST_RUN, at)?;
    let failed = all().map(|(name, last)| {
        let failed = last.outcome() == Some(RunOutcome::Failed);
        ([name.to_string()], f64::from(u8::from(failed)))
    });
    writer.write(catalogue::RECONCILE_FAILED, failed)?;
    let look_ups = keepers.map(|keepers| keepers.settler.stats());
    let look_ups = look_ups.unwrap_or_default();
    let look_ups = look_ups
        .iter()
        .map(|(outcome, count)| ([outcome.name().to_owned()], number(*count)));
    writer.write(catalogue::LOOK_UPS, look_ups)
}

fn write_watches(writer: &mut Writer<'_>, watches: Option<&Watches>) -> fmt::Result {
    let all = watches.map(Watches::stats).unwrap_or_default();
    let open = all
        .iter()
        .map(|(name, stats)| ([name.to_string()], number(stats.open)));
    writer.write(catalogue::WATCHES, open)?;
    let messages = all.iter().flat_map(|(name, stats)| {
        let counts = stats.messages.iter();
        counts.map(|(kind, count)| ([name.to_string(), kind.name().to_owned()], number(*count)))
    });
    writer.write(catalogue::WATCH_MESSAGES, messages)?;
    let ended = all.iter().flat_map(|(name, stats)| {
        let counts = stats.ended.iter();
        counts.map(|(cause, count)| ([name.to_string(), cause.name().to_owned()], number(*count)))
    });
    writer.write(catalogue::WATCHES_ENDED, ended)
}
