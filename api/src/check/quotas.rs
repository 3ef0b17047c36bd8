//! Checks of quotas.

use backstitch_saga::protocol::Quotas;

use super::{Check, Findings};

impl Check for Quotas {
    fn check(&self, findings: &mut Findings) {
        if *self == Quotas::default() {
            findings.add(
                "",
                "empty",
                "Quotas limit something; delete them to lift all of the namespace's own",
            );
        }
        for name in Quotas::NAMES {
            if self.get(name) == Some(0) {
                findings.add(&format!("/{name}"), "out_of_range", "It must be at least 1");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_limit_something_and_leave_something() {
        let check = |quotas: Quotas| {
            let mut findings = Findings::default();
            quotas.check(&mut findings);
            findings.first().map(|violation| (violation.pointer, violation.code))
        };
        assert_eq!(check(Quotas { runs: Some(1), ..Quotas::default() }), None);
        let wrong = check(Quotas { runs: Some(0), ..Quotas::default() });
        assert_eq!(wrong, Some(("/runs".to_owned(), "out_of_range".to_owned())));
        assert_eq!(check(Quotas::default()), Some((String::new(), "empty".to_owned())));
    }
}
