//! Chooses the secret of a request. Pure.
//!
//! A secret goes only to the server that it was given with: that of a profile to the profile's URL, that of the
//! variables to the URL of the variables. Only a secret that is typed as a flag goes wherever the request goes.

use super::profile::DEFAULT_URL;

/// Origin of the URL that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Variable,
    Profile,
    Default,
}

/// The secrets that were given, each with the URL of the same source.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub(super) flag: Option<String>,
    pub(super) variable: Option<String>,
    pub(super) variable_url: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) profile_url: Option<String>,
    /// The profile's name.
    pub(super) name: String,
    /// `true` if the profile was requested by its name.
    pub(super) named: bool,
}

/// The secret for `url`, if one belongs to it, and a remark on one that does not.
///
/// # Errors
/// When a profile was asked for by name and its secret belongs to another URL: such a request would do on one server
/// what was meant for another.
pub(super) fn choose(
    given: Given,
    url: &str,
    origin: Origin,
) -> Result<(Option<String>, Option<String>), String> {
    if given.flag.is_some() {
        return Ok((given.flag, None));
    }
    let mut withheld = None;
    if let Some(secret) = given.variable {
        let belongs = match &given.variable_url {
            Some(own) => same(own, url),
            None => origin != Origin::Profile,
        };
        if belongs {
            return Ok((Some(secret), None));
        }
        let its = given.variable_url.as_deref().map_or_else(
            || "no URL, and this one comes from a profile".to_owned(),
            |own| format!("the URL {own}"),
        );
        withheld = Some(format!(
            "the secret of BACKSTITCH_API_KEY was not sent to {url}: it was given with {its}"
        ));
    }
    let Some(secret) = given.profile else { return Ok((None, withheld)) };
    let own = given.profile_url.as_deref().unwrap_or(DEFAULT_URL);
    if same(own, url) {
        return Ok((Some(secret), None));
    }
    let name = &given.name;
    if given.named {
        let from = match origin {
            Origin::Flag => "--url",
            _ => "BACKSTITCH_URL",
        };
        return Err(format!(
            "the profile '{name}' is for {own}, but {from} says {url}, and the profile's secret goes \
             nowhere else; leave out one of the two, or give a secret with --api-key-file"
        ));
    }
    Ok((
        None,
        Some(format!(
            "the secret of the profile '{name}' was not sent to {url}: it was given with the URL {own}"
        )),
    ))
}

/// Returns whether two texts are the same URL.
fn same(one: &str, other: &str) -> bool {
    let read = |text: &str| text.trim_end_matches('/').parse::<reqwest::Url>().ok();
    read(one).is_some_and(|one| read(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = "http://live:7420";
    const OTHER: &str = "http://other:7420";

    fn given(variable: Option<&str>, variable_url: Option<&str>, named: bool) -> Given {
        Given {
            flag: None,
            variable: variable.map(str::to_owned),
            variable_url: variable_url.map(str::to_owned),
            profile: Some("of-live".to_owned()),
            profile_url: Some(LIVE.to_owned()),
            name: "live".to_owned(),
            named,
        }
    }

    #[test]
    fn a_secret_goes_only_to_the_server_that_it_was_given_with() {
        use Origin::{Flag, Profile, Variable};
        for (variable, variable_url, url, origin, secret) in [
            (None, None, LIVE, Profile, Some("of-live")),
            (None, None, "http://live:7420/", Flag, Some("of-live")),
            (None, None, OTHER, Flag, None),
            (None, Some(OTHER), OTHER, Variable, None),
            (Some("own"), Some(OTHER), OTHER, Variable, Some("own")),
            (Some("own"), None, OTHER, Flag, Some("own")),
            (Some("own"), Some(OTHER), "http://third", Flag, None),
            (Some("own"), Some(OTHER), LIVE, Flag, Some("of-live")),
            (Some("own"), None, LIVE, Profile, Some("of-live")),
        ] {
            let case = format!("{variable:?} {variable_url:?} {url} {origin:?}");
            let (chosen, withheld) =
                choose(given(variable, variable_url, false), url, origin).unwrap();
            assert_eq!(chosen.as_deref(), secret, "{case}");
            assert_eq!(withheld.is_some(), secret.is_none(), "{case}");
        }
    }

    #[test]
    fn the_variables_secret_does_not_go_to_a_profiles_url() {
        let of = Given { profile: None, ..given(Some("own"), None, true) };
        let (chosen, withheld) = choose(of, LIVE, Origin::Profile).unwrap();
        assert_eq!(chosen, None);
        assert!(withheld.unwrap().contains("BACKSTITCH_API_KEY"));
    }

    #[test]
    fn a_profile_that_was_asked_for_is_not_asked_elsewhere() {
        for (origin, word) in [(Origin::Flag, "--url"), (Origin::Variable, "BACKSTITCH_URL")] {
            let error = choose(given(None, None, true), OTHER, origin).unwrap_err();
            assert!(
                error.contains(LIVE) && error.contains(OTHER) && error.contains(word),
                "{error}"
            );
        }
        let typed = Given { flag: Some("typed".to_owned()), ..given(None, None, true) };
        assert_eq!(choose(typed, OTHER, Origin::Flag).unwrap().0.as_deref(), Some("typed"));
    }
}
