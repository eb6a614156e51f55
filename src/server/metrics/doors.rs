//! What came through the doors.

use std::fmt;

use super::number;
use crate::{
    callers::CallerOutcome,
    door::{
        CODES, GrpcMethod, Route,
        grpc::{CallOutcome, CallStats, Rpc},
    },
    server::{callers::CallerRules, tls::ReloadedTls},
    telemetry::{
        lines::LineStats,
        metrics::{self as catalogue, Writer},
        otlp::{self, Signal},
    },
};

pub(super) fn write(writer: &mut Writer<'_>, calls: &CallStats) -> fmt::Result {
    let answers = Rpc::ALL.into_iter().flat_map(|rpc| {
        CallOutcome::all().map(move |outcome| {
            let labels = [rpc.name(), outcome.name()].map(str::to_owned);
            (labels, number(calls.answered(rpc, outcome)))
        })
    });
    writer.write(catalogue::ANSWERS, answers)?;
    let traffic = calls.traffic();
    let codes = GrpcMethod::ALL.into_iter().flat_map(|method| {
        CODES.iter().enumerate().map(move |(code, name)| {
            let labels = [method.name(), name].map(str::to_owned);
            (labels, number(traffic.calls(method, code)))
        })
    });
    writer.write(catalogue::GRPC_CALLS, codes)?;
    let durations =
        GrpcMethod::ALL.map(|method| ([method.name().to_owned()], traffic.call_durations(method)));
    writer.write_durations(catalogue::GRPC_CALL_DURATION, durations)?;
    let statuses = Route::ALL.into_iter().flat_map(|route| {
        traffic.requests(route).map(move |(status, count)| {
            ([route.name().to_owned(), status.to_string()], number(count))
        })
    });
    writer.write(catalogue::HTTP_REQUESTS, statuses)?;
    let durations =
        Route::ALL.map(|route| ([route.name().to_owned()], traffic.request_durations(route)));
    writer.write_durations(catalogue::HTTP_REQUEST_DURATION, durations)?;
    writer.write_one(catalogue::CALLS_IN_FLIGHT, number(calls.in_flight()))?;
    writer.write_one(catalogue::CALLS_SHED, number(calls.shed()))
}

pub(super) fn write_callers(writer: &mut Writer<'_>, rules: Option<&CallerRules>) -> fmt::Result {
    let all = rules.into_iter().flat_map(|rules| rules.callers().stats());
    let calls = all.flat_map(|(name, stats)| {
        CallerOutcome::ALL.map(|outcome| {
            let labels = [&*name, outcome.name()].map(str::to_owned);
            (labels, number(stats.calls(outcome)))
        })
    });
    writer.write(catalogue::CALLER_CALLS, calls)?;
    let reloads = rules.into_iter().flat_map(|rules| {
        let (applied, refused) = rules.reloads();
        [("applied", applied), ("refused", refused)]
            .map(|(outcome, count)| ([outcome.to_owned()], number(count)))
    });
    writer.write(catalogue::CALLER_RELOADS, reloads)
}

pub(super) fn write_decisions(writer: &mut Writer<'_>, lines: Option<LineStats>) -> fmt::Result {
    let counts = lines.into_iter().flat_map(|stats| {
        let LineStats {
            written,
            dropped,
            failed,
        } = stats;
        [
            ("written", written),
            ("dropped", dropped),
            ("failed", failed),
        ]
        .map(|(outcome, count)| ([outcome.to_owned()], number(count)))
    });
    writer.write(catalogue::DECISION_LOG_LINES, counts)
}

pub(super) fn write_otlp(writer: &mut Writer<'_>) -> fmt::Result {
    let items = Signal::ALL.into_iter().flat_map(|signal| {
        let counts = otlp::stats(signal).into_iter().flatten();
        counts.map(move |(outcome, count)| {
            ([signal.name(), outcome].map(str::to_owned), number(count))
        })
    });
    writer.write(catalogue::OTLP_ITEMS, items)
}

pub(super) fn write_tls(writer: &mut Writer<'_>, tls: Option<&ReloadedTls>) -> fmt::Result {
    let reloads = tls.into_iter().flat_map(|tls| {
        let (applied, refused) = tls.reloads();
        [("applied", applied), ("refused", refused)]
            .map(|(outcome, count)| ([outcome.to_owned()], number(count)))
    });
    writer.write(catalogue::TLS_RELOADS, reloads)?;
    let expires = tls.map(|tls| ([], tls.doors().not_after().unix_seconds() as f64));
    writer.write::<[String; 0]>(catalogue::TLS_CERTIFICATE_EXPIRES, expires)
}
