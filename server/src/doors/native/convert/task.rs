//! Tasks: davit.v1's form and ours.

use davit_engine::model;
use davit_proto::v1;
use tonic::Status;

use super::{from_time, to_exec_options, to_time};

pub(in super::super) fn from_condition(from: v1::wait_request::Condition) -> model::WaitCondition {
    match from {
        v1::wait_request::Condition::NotRunning => model::WaitCondition::NotRunning,
        v1::wait_request::Condition::NextExit => model::WaitCondition::NextExit,
        v1::wait_request::Condition::Removed => model::WaitCondition::Removed,
    }
}

pub(in super::super) fn to_exit(from: model::ExitStatus) -> v1::ExitStatus {
    v1::ExitStatus {
        exit_code: from.exit_code,
        exited_at: from.exited_at.map(to_time),
        error: from.error,
        oom_killed: from.oom_killed,
    }
}

pub(in super::super) fn to_exec_details(from: model::ExecDetails) -> v1::ExecDetails {
    v1::ExecDetails {
        id: from.id,
        container_id: from.container_id,
        options: Some(to_exec_options(from.options)),
        running: from.running,
        started: from.started,
        exit_code: from.exit_code.unwrap_or_default(),
        pid: from.pid.map_or(0, u32::cast_signed),
        error: from.error,
    }
}

pub(in super::super) fn from_attach(from: v1::AttachStart) -> (String, model::AttachOptions) {
    let options = model::AttachOptions {
        stdin: from.stdin,
        stdout: from.stdout,
        stderr: from.stderr,
        logs: from.logs,
        stream: from.stream,
        detach_keys: from.detach_keys,
    };
    (from.container, options)
}

pub(in super::super) fn from_logs(
    from: v1::LogsRequest,
) -> Result<(String, model::LogsRequest), Status> {
    let request = model::LogsRequest {
        stdout: from.stdout,
        stderr: from.stderr,
        follow: from.follow,
        since: from.since.map(from_time).transpose()?,
        until: from.until.map(from_time).transpose()?,
        tail: if from.tail_set {
            u64::try_from(from.tail).ok()
        } else {
            None
        },
        after: from.after,
    };
    Ok((from.container, request))
}

pub(in super::super) fn to_log_entry(from: model::LogEntry) -> v1::LogEntry {
    let stream = match from.stream {
        model::LogStream::Stdout => v1::log_entry::Stream::Stdout,
        model::LogStream::Stderr => v1::log_entry::Stream::Stderr,
    };
    v1::LogEntry {
        stream: stream.into(),
        time: Some(to_time(from.time)),
        line: from.line,
        position: from.position,
        partial: from.partial,
    }
}

pub(in super::super) fn to_stats(from: model::Stats) -> v1::StatsResponse {
    let blkio = |entries: Vec<model::BlkioEntry>| -> Vec<v1::BlkioEntry> {
        entries
            .into_iter()
            .map(|entry| v1::BlkioEntry {
                major: entry.major,
                minor: entry.minor,
                op: entry.op,
                value: entry.value,
            })
            .collect()
    };
    v1::StatsResponse {
        read_at: Some(to_time(from.read_at)),
        cpu: Some(v1::CpuStats {
            usage_total: from.cpu.usage_total,
            usage_kernel: from.cpu.usage_kernel,
            usage_user: from.cpu.usage_user,
            usage_per_cpu: from.cpu.usage_per_cpu,
            system_usage: from.cpu.system_usage,
            online_cpus: from.cpu.online_cpus,
            throttling_periods: from.cpu.throttling_periods,
            throttled_periods: from.cpu.throttled_periods,
            throttled_time: from.cpu.throttled_time,
        }),
        memory: Some(v1::MemoryStats {
            usage: from.memory.usage,
            max_usage: from.memory.max_usage,
            limit: from.memory.limit,
            failcnt: from.memory.failcnt,
            stats: from.memory.stats.into_iter().collect(),
        }),
        pids: Some(v1::PidsStats {
            current: from.pids.current,
            limit: from.pids.limit,
        }),
        blkio: Some(v1::BlkioStats {
            service_bytes: blkio(from.blkio.service_bytes),
            serviced: blkio(from.blkio.serviced),
        }),
        networks: from
            .networks
            .into_iter()
            .map(|(name, from)| (name, to_network_stats(&from)))
            .collect(),
        id: from.id,
        name: from.name,
    }
}

fn to_network_stats(from: &model::NetworkStats) -> v1::NetworkStats {
    v1::NetworkStats {
        rx_bytes: from.rx_bytes,
        rx_packets: from.rx_packets,
        rx_errors: from.rx_errors,
        rx_dropped: from.rx_dropped,
        tx_bytes: from.tx_bytes,
        tx_packets: from.tx_packets,
        tx_errors: from.tx_errors,
        tx_dropped: from.tx_dropped,
    }
}

pub(in super::super) fn to_processes(from: model::Processes) -> v1::ProcessesResponse {
    v1::ProcessesResponse {
        titles: from.titles,
        rows: from
            .rows
            .into_iter()
            .map(|columns| v1::ProcessRow { columns })
            .collect(),
    }
}
