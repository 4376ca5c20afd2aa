//! What an end that was not waited for leaves behind, in words, with the command that mends it.

use crate::intercept::OnRecord;

/// The claims that one kdev left in a namespace.
pub(super) fn words(on_record: &OnRecord, namespace: &str) -> Vec<String> {
    let left = on_record.left().into_iter();
    left.filter_map(|(service, traces)| {
        let ids: Vec<String> = traces.claims.into_iter().collect();
        (!ids.is_empty()).then(|| {
            format!(
                "Service {service} may still lead to the relay, with your {} {} on record; \
                 `kdev restore {service} -n {namespace}` gives it back",
                if ids.len() == 1 { "claim" } else { "claims" },
                ids.join(", ")
            )
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::Left;

    #[test]
    fn a_claim_that_may_be_there_is_told() {
        let record = OnRecord::default();
        record.begin("cart", "a");
        record.begin("cart", "b");
        record.begin("web", "c");
        let told = words(&record, "shop");
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("your claims a, b"), "{told:?}");
        assert!(told[1].contains("`kdev restore web -n shop`"), "{told:?}");

        record.end("cart", "a", &Left::Others(1));
        record.end("cart", "b", &Left::Last);
        record.end("web", "c", &Left::Nothing);
        assert!(!record.may_be());
        assert!(words(&record, "shop").is_empty());
        assert!(record.has_passage());
        record.begin("cart", "d");
        assert!(!record.has_passage());
    }
}
