//! Compiles the init that davit-sys carries (`init/main.rs`): a static program
//! of its own, for the same machine as davit, without std and C library.

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=init/main.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("davit-init");
    if !matches!(
        variable("CARGO_CFG_TARGET_ARCH").as_str(),
        "x86_64" | "aarch64"
    ) {
        // The daemon says that it has none when somebody asks for it.
        fs::write(&out, b"").unwrap_or_else(|error| panic!("writing {}: {error}", out.display()));
        return;
    }
    let (host, target) = (variable("HOST"), variable("TARGET"));
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args([
        "--edition",
        "2024",
        "--crate-name",
        "davit_init",
        "--crate-type",
        "bin",
    ]);
    rustc.args([
        "-C",
        "opt-level=s",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
        "-C",
        "relocation-model=static",
    ]);
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
    ] {
        rustc.arg("-C").arg(format!("link-arg={argument}"));
    }
    if host != target {
        rustc.args(["--target", &target]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    rustc.arg("-o").arg(&out).arg("init/main.rs");
    let status = rustc
        .status()
        .unwrap_or_else(|error| panic!("running rustc for init/main.rs: {error}"));
    assert!(status.success(), "init/main.rs does not compile: {rustc:?}");
}
