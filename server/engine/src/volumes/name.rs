//! Names of volumes, and the name that somebody may have meant.

/// Largest edit distance at which a name counts as a typing error.
const NEAR: usize = 2;

/// The name of `names` that is closest to `wanted`, if one is near enough to
/// be meant: two edits, and fewer for short names.
pub(super) fn closest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bound = NEAR.min(wanted.len() / 3).max(1);
    names
        .filter(|name| name.len().abs_diff(wanted.len()) <= bound)
        .map(|name| (distance(wanted.as_bytes(), name.as_bytes()), name))
        .filter(|(distance, _)| (1..=bound).contains(distance))
        .min()
        .map(|(_, name)| name)
}

/// Edits (of one byte, and swaps of two neighbours) from `a` to `b`; letters'
/// case costs nothing extra than any other edit.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn typing_errors_are_near() {
        let names = ["web_volume", "db", "cache"];
        let near = |wanted| closest(wanted, names.into_iter());
        assert_eq!(near("web_volum"), Some("web_volume"));
        assert_eq!(near("wbe_volume"), Some("web_volume"));
        assert_eq!(near("web-volumes"), Some("web_volume"));
        assert_eq!(near("bd"), Some("db"));
        assert_eq!(near("cach"), Some("cache"));
        assert_eq!(near("logs"), None);
        assert_eq!(near("web_volume"), None);
        assert_eq!(near("web"), None);
    }
}
