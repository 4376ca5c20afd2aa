//! What an end that was not waited for leaves behind, in words, with the command that mends it.

use crate::intercept::OnRecord;

/// What one kdev left in a namespace. The way of late callers is told where `skipped`: else it is
/// left to whoever ended the intercept.
pub(super) fn words(on_record: &OnRecord, namespace: &str, skipped: bool) -> Vec<String> {
    let left = on_record.left().into_iter();
    left.filter_map(|(service, traces)| {
        let ids: Vec<String> = traces.claims.into_iter().collect();
        match ids.as_slice() {
            [] => (skipped && traces.passage).then(|| passage(&service, namespace)),
            ids => Some(format!(
                "Service {service} may still lead to the relay, with your {} {} on record; \
                 `kdev restore {service} -n {namespace}` gives it back",
                if ids.len() == 1 { "claim" } else { "claims" },
                ids.join(", ")
            )),
        }
    })
    .collect()
}

/// That what leads late callers to the pods is still there.
pub(super) fn passage(service: &str, namespace: &str) -> String {
    format!(
        "Service {service} has its own pods again; what leads late callers to them stays until \
         `kdev restore {service} -n {namespace}` clears it away"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::Left;

    #[test]
    fn a_claim_that_may_be_there_is_told_and_a_passage_where_nobody_waited() {
        let record = OnRecord::default();
        record.begin("cart", "a");
        record.begin("cart", "b");
        record.begin("web", "c");
        let told = words(&record, "shop", false);
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("your claims a, b"), "{told:?}");
        assert!(told[1].contains("`kdev restore web -n shop`"), "{told:?}");

        record.end("cart", "a", &Left::Others(1));
        record.end("cart", "b", &Left::Last);
        record.end("web", "c", &Left::Nothing);
        assert!(!record.may_be());
        assert!(words(&record, "shop", false).is_empty());
        let told = words(&record, "shop", true);
        assert!(told[0].contains("late callers"), "{told:?}");
        record.swept("cart");
        assert!(words(&record, "shop", true).is_empty());
    }
}
