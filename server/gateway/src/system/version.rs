//! GET /version

use davit_client::v1;
use serde_json::{Map, Value, json};

use crate::{
    convert::time,
    failure::Result,
    reply::{self, Reply},
    request::Call,
    version::{MAX_API_VERSION, MIN_API_VERSION},
};

pub(crate) async fn version(call: Call) -> Result<Reply> {
    let found = call
        .gateway
        .calls()
        .system()
        .version(v1::VersionRequest {})
        .await?
        .into_inner();
    Ok(reply::ok(&to_json(&found)))
}

fn to_json(version: &v1::VersionResponse) -> Value {
    let built = match &version.build_time {
        Some(built) => time::rfc3339(Some(built)),
        None => String::new(),
    };
    let rust = &version.rust_version;
    // Where docker tells the Go that it was built with.
    let compiler = if rust.is_empty() {
        "rust".to_owned()
    } else {
        format!("rust {rust}")
    };
    let engine = json!({
        "Name": "Engine",
        "Version": version.version,
        "Details": {
            "ApiVersion": MAX_API_VERSION,
            "Arch": version.arch,
            "BuildTime": built,
            "Experimental": "false",
            "GitCommit": version.git_commit,
            "GoVersion": compiler,
            "KernelVersion": version.kernel_version,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": version.os,
        },
    });
    let others = version.components.iter().map(component);
    json!({
        "Platform": {"Name": "davit"},
        "Components": std::iter::once(engine).chain(others).collect::<Value>(),
        "Version": version.version,
        "ApiVersion": MAX_API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "GitCommit": version.git_commit,
        "GoVersion": compiler,
        "Os": version.os,
        "Arch": version.arch,
        "KernelVersion": version.kernel_version,
        "BuildTime": built,
    })
}

/// The CLI shows "GitCommit" of each; the others as they are.
fn component(component: &v1::Component) -> Value {
    let sorted: std::collections::BTreeMap<_, _> = component.details.iter().collect();
    let mut details: Map<String, Value> = sorted
        .into_iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    details.entry("GitCommit").or_insert_with(|| json!(""));
    json!({"Name": component.name, "Version": component.version, "Details": details})
}
