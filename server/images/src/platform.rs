//! Platforms: what this host is, and which of an index's images runs on it.
//!
//! Names are Go's (OCI image spec, image-index.md); aliases and the order of
//! preference are those of containerd's platforms.

use davit_store::descriptor::Platform;

/// What this host runs best.
pub fn host() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    };
    let variant = match architecture {
        "amd64" => amd64_level(),
        "arm" => "v7",
        _ => "",
    };
    normalize(&Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
        os_version: String::new(),
    })
}

/// One platform has one spelling: aliases and default variants go.
pub fn normalize(platform: &Platform) -> Platform {
    let os = match platform.os.to_ascii_lowercase().as_str() {
        "" => "linux".to_owned(),
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    };
    let given = platform.architecture.to_ascii_lowercase();
    let variant = platform.variant.to_ascii_lowercase();
    let (architecture, variant) = match (given.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    Platform {
        os,
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
        os_version: platform.os_version.clone(),
    }
}

/// "linux/arm/v7", as people write it.
pub fn format(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    text
}

/// What an image is wanted for.
#[derive(Debug, Clone)]
pub struct Wanted {
    platform: Platform,
    /// The caller named it; nothing related will do.
    strict: bool,
}

impl Wanted {
    /// The platform that a caller named (empty parts mean the host's), or the
    /// host's.
    pub fn new(platform: Option<&Platform>) -> Self {
        let host = host();
        let Some(platform) = platform.filter(|platform| **platform != Platform::default()) else {
            return Self {
                platform: host,
                strict: false,
            };
        };
        let mut wanted = platform.clone();
        if wanted.architecture.is_empty() {
            wanted.architecture.clone_from(&host.architecture);
            if wanted.variant.is_empty() {
                wanted.variant = host.variant;
            }
        }
        Self {
            platform: normalize(&wanted),
            strict: true,
        }
    }

    /// The platform itself.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Whether the caller named it.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// How well an image for `have` fits: 0 is exact, `None` not at all.
    pub fn rank(&self, have: &Platform) -> Option<u32> {
        let have = normalize(have);
        if have.os != self.platform.os {
            return None;
        }
        if have.architecture == self.platform.architecture {
            return variant_rank(
                &have.architecture,
                level(&self.platform.variant),
                level(&have.variant),
            );
        }
        match (
            self.platform.architecture.as_str(),
            have.architecture.as_str(),
        ) {
            _ if self.strict => None,
            ("amd64", "386") => Some(1000),
            ("arm64", "arm") => variant_rank("arm", 80, level(&have.variant)).map(|n| 1000 + n),
            _ => None,
        }
    }
}

/// Lower levels run on higher ones; the highest is the best.
fn variant_rank(architecture: &str, wanted: u32, have: u32) -> Option<u32> {
    match architecture {
        "amd64" | "arm" | "arm64" => wanted.checked_sub(have),
        _ => (wanted == have).then_some(0),
    }
}

/// "v8.2" is 82; no variant is the lowest level.
fn level(variant: &str) -> u32 {
    let digits = variant.strip_prefix('v').unwrap_or(variant);
    let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
    let number = |text: &str| text.parse::<u32>().unwrap_or(0).min(99);
    number(major) * 10 + number(minor).min(9)
}

#[cfg(target_arch = "x86_64")]
fn amd64_level() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2") && has!("popcnt");
    let v3 = v2 && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma") && has!("movbe");
    let v4 = v3
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, _, _) => "v2",
        _ => "",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> &'static str {
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next().unwrap_or_default(),
            os_version: String::new(),
        }
    }

    #[test]
    fn the_best_variant_wins() {
        let wanted = Wanted::new(Some(&platform("linux/arm/v7")));
        let rank = |text| wanted.rank(&platform(text));
        assert_eq!(rank("linux/arm/v7"), Some(0));
        assert_eq!(rank("linux/arm"), Some(0));
        assert!(rank("linux/arm/v6") < rank("linux/arm/v5"));
        assert_eq!(rank("linux/arm/v8"), None);
        assert_eq!(rank("linux/arm64"), None);
        assert_eq!(rank("windows/arm/v7"), None);
        let wanted = Wanted::new(Some(&platform("linux/arm64/v8")));
        assert_eq!(wanted.rank(&platform("linux/arm64")), Some(0));
        assert_eq!(wanted.rank(&platform("linux/aarch64/v8")), Some(0));
        assert_eq!(wanted.rank(&platform("linux/arm/v7")), None);
        let wanted = Wanted::new(Some(&platform("linux/amd64")));
        assert_eq!(wanted.rank(&platform("linux/amd64/v2")), None);
        assert_eq!(wanted.rank(&platform("linux/386")), None);
        assert_eq!(wanted.rank(&platform("unknown/unknown")), None);
    }

    #[test]
    fn the_host_runs_itself() {
        let wanted = Wanted::new(None);
        let own = host();
        assert!(wanted.rank(&own).is_some());
        let plain = Platform {
            variant: String::new(),
            ..own.clone()
        };
        assert!(wanted.rank(&plain) >= wanted.rank(&own));
        assert!(!Wanted::new(Some(&Platform::default())).is_strict());
    }
}
