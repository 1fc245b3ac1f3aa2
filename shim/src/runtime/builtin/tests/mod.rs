//! Real containers on the real kernel; most of them also by runc, which has to do the same.

mod bundle;

use bundle::Bundle;

#[test]
fn exit_codes() {
    for (args, code) in [
        (vec!["true"], 0),
        (vec!["/bin/false"], 1),
        (vec!["sh", "-c", "exit 42"], 42),
    ] {
        assert_eq!(Bundle::new(&args).run().unwrap().code, code, "{args:?}");
    }
}
