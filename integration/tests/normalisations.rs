//! The table of normalisations, and the property that normalising twice changes nothing.

use backstitch_integration::canonical::{
    Clean, DateFormat, DecimalRule, Fold, InstantRule, MoneyRule, QuantityRule, Refused, Round,
    clean, country, date, email, instant, money, phone, quantity, unit,
};
use backstitch_integration::document::{Value, read};
use proptest::prelude::*;

const TABLE: &str = include_str!("normalisations.txt");

/// Returns an option of a line: `name=value`, where a value ends before the next name.
fn option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    let names =
        ["format=", "zone=", "fold=", "round=", "point=", "group=", "to=", "scale=", "region="];
    let (_, rest) = options.split_once(&format!("{name}="))?;
    let end = names.iter().filter_map(|next| rest.find(&format!(" {next}"))).min();
    Some(rest[..end.unwrap_or(rest.len())].trim())
}

fn value(text: &str) -> Value {
    read(text.trim().as_bytes(), 10_000).unwrap_or_else(|wrong| panic!("{text}: {wrong}")).1
}

fn format(options: &str) -> Option<DateFormat> {
    option(options, "format").map(|format| DateFormat::parse(format).expect("the table is right"))
}

fn instant_rule(options: &str) -> InstantRule {
    match format(options) {
        Some(format) => InstantRule::Format {
            format,
            zone: option(options, "zone").map(|zone| zone.parse().expect("the table is right")),
            fold: option(options, "fold").map(|fold| match fold {
                "earlier" => Fold::Earlier,
                _ => Fold::Later,
            }),
        },
        None if options.contains("unix_ms") => InstantRule::UnixMillis,
        None if options.contains("unix") => InstantRule::UnixSeconds,
        None => InstantRule::Rfc3339,
    }
}

fn decimal_rule(options: &str) -> DecimalRule {
    let character = |name| option(options, name).and_then(|text| text.chars().next());
    DecimalRule { point: character("point").unwrap_or('.'), group: character("group") }
}

fn normalise(kind: &str, options: &str, input: &[Value]) -> Result<Value, Refused> {
    let round = option(options, "round").map(|_| Round::HalfEven);
    let (first, second) = (&input[0], input.get(1).unwrap_or(&Value::Null));
    match kind {
        "instant" => instant(first, &instant_rule(options)).map(Value::from),
        "date" => date(first, format(options).as_ref()).map(Value::from),
        "money" => {
            let minor_units = options.contains("minor_units");
            money(first, second, &MoneyRule { decimal: decimal_rule(options), minor_units, round })
        }
        "quantity" => {
            let scale =
                option(options, "scale").map(|scale| scale.parse().expect("the table is right"));
            let target = option(options, "to").map(|code| unit(code).expect("the table is right"));
            let decimal = decimal_rule(options);
            quantity(first, second, &QuantityRule { decimal, target, round: scale.zip(round) })
        }
        "country" => country(first).map(Value::from),
        "phone" => phone(first, option(options, "region")).map(Value::from),
        "email" => email(first).map(|email| Value::from(email.address())),
        "text" => Ok(Value::from(clean(
            first.as_str().expect("the table is right"),
            &clean_rules(options),
        ))),
        other => panic!("{other}"),
    }
}

fn clean_rules(options: &str) -> Vec<Clean> {
    let rules = options.split(',').map(|rule| match rule.trim() {
        "nfc" => Clean::Nfc,
        "nfkc" => Clean::Nfkc,
        "trim" => Clean::Trim,
        "spaces" => Clean::Spaces,
        "upper" => Clean::Upper,
        "lower" => Clean::Lower,
        other => panic!("{other}"),
    });
    rules.collect()
}

/// Normalises what is canonical already, by the rules for what is spelt canonically.
fn again(kind: &str, options: &str, canonical: &Value) -> Result<Value, Refused> {
    let part = |name: &str| canonical.member(name).cloned().unwrap_or(Value::Null);
    match kind {
        "money" => normalise(kind, "", &[part("amount"), part("currency")]),
        "quantity" => normalise(kind, "", &[part("value"), part("unit")]),
        "text" => normalise(kind, options, std::slice::from_ref(canonical)),
        _ => normalise(kind, "", std::slice::from_ref(canonical)),
    }
}

/// Returns the inputs of a line: two values next to each other for money and quantities.
fn inputs(text: &str) -> Vec<Value> {
    match text.trim().rsplit_once(' ') {
        Some((first, second)) if serde_json::from_str::<serde_json::Value>(text).is_err() => {
            // A currency with spaces around it.
            match text.trim().strip_suffix(" \" EUR \"") {
                Some(first) => vec![value(first), value("\" EUR \"")],
                None => vec![value(first), value(second)],
            }
        }
        _ => vec![value(text)],
    }
}

#[test]
fn every_line_of_the_table_holds_and_normalising_twice_changes_nothing() {
    let lines: Vec<&str> =
        TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let wrong: Vec<String> = lines.iter().filter_map(|line| check(line).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(lines.len() >= 60, "{} lines", lines.len());
}

/// Holds a line to what it says.
fn check(line: &str) -> Result<(), String> {
    let [kind, options, input, expected] = line.split('|').map(str::trim).collect::<Vec<_>>()[..]
    else {
        return Err(format!("{line}: a line has four columns"));
    };
    let found = normalise(kind, options, &inputs(input));
    let as_expected = match (expected.strip_prefix('!'), &found) {
        (Some(code), Err(refused)) => refused.code == code && refused.message.len() > 15,
        (None, Ok(found)) => {
            found.to_json() == value(expected).to_json()
                && again(kind, options, found).as_ref() == Ok(found)
        }
        _ => false,
    };
    if as_expected { Ok(()) } else { Err(format!("{line}: {found:?}")) }
}

/// Generates texts that resemble scalars, and others.
fn texts() -> impl Strategy<Value = String> {
    let pieces = vec![
        "2025",
        "-03",
        "-30",
        "T10:00:00",
        "Z",
        "+02:00",
        ".5",
        "12",
        "0",
        ".",
        ",",
        "-",
        "+",
        "49",
        " 30 ",
        "901820",
        "(0)",
        "@",
        "example",
        ".com",
        "ü",
        "e\u{301}",
        "＠",
        "İ",
        "ﬁ",
        "ß",
        "E",
        "EUR",
        "\u{a0}",
        "DE",
    ];
    prop_oneof![
        proptest::collection::vec(prop::sample::select(pieces), 1..10)
            .prop_map(|pieces| pieces.concat()),
        any::<String>(),
        "[+]?[0-9 ()-]{3,20}",
        "[0-9]{1,25}([.][0-9]{1,12})?",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn normalising_twice_changes_nothing(
        text in texts(),
        kind in prop::sample::select(vec!["instant", "date", "money", "quantity", "country", "phone", "email"]),
        currency in prop::sample::select(vec!["EUR", "JPY", "KWD", "kg", "lb"]),
        options in prop::sample::select(vec!["", "region=DE", "region=GB", "region=US", "unix", "round=half_even scale=2 to=kg", "region=IT"]),
    ) {
        let input = [Value::from(text.as_str()), Value::from(currency)];
        if let Ok(once) = normalise(kind, options, &input) {
            prop_assert_eq!(again(kind, options, &once), Ok(once), "{}", text);
        }
    }

    #[test]
    fn cleaning_twice_changes_nothing(
        text in texts(),
        rules in prop::sample::subsequence(vec![Clean::Nfc, Clean::Nfkc, Clean::Trim, Clean::Spaces, Clean::Upper, Clean::Lower], 0..6),
    ) {
        let once = clean(&text, &rules);
        prop_assert_eq!(clean(&once, &rules), once);
    }

    #[test]
    fn no_format_and_no_text_make_a_date_panic(format in "(%[YmdeBbjHIpMSz.f:%]|[ a-z/.-]){0,8}", text in texts()) {
        if let Ok(format) = DateFormat::parse(&format) {
            let _ = date(&Value::from(text.as_str()), Some(&format));
            let rule = InstantRule::Format { format, zone: Some(chrono_tz::Tz::Europe__Berlin), fold: Some(Fold::Earlier) };
            let _ = instant(&Value::from(text), &rule);
        }
    }
}
