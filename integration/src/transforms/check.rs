//! Checks a transform against the contracts of its source and its target.

use std::collections::BTreeSet;

use backstitch_saga::Violation;

use super::document::{OnError, TransformDocument};
use super::read::Reader;
use super::rule::{CopyAs, Given, Operation, Otherwise, Piece, Rule, Transform};
use crate::Payload;
use crate::canonical::country;
use crate::contracts::{Format, Kind, MOST_VIOLATIONS, Node, Schema, TextRule, World};
use crate::document::{Number, Object, Pointer, Value};

impl Transform {
    /// Reads a transform and checks it against both contracts.
    ///
    /// # Errors
    /// Everything that is wrong, with its place in the transform: `transform_not_valid` and `rule_not_valid` for its
    /// form, `option_not_for_operation`, `source_path_unknown`, `source_type_mismatch`, `target_path_unknown`,
    /// `target_type_mismatch`, `target_set_twice`, `required_target_unfilled`, `enum_value_unmapped`,
    /// `value_not_in_target`, `null_not_allowed`, and codes of single operations.
    pub fn register(
        document: &Payload,
        source: &Schema,
        target: &Schema,
    ) -> Result<Transform, Vec<Violation>> {
        let written: TransformDocument = document.to().map_err(|error| {
            vec![Violation::new("", "transform_not_valid", format!("not a transform: {error}"))]
        })?;
        let mut reader = Reader::new();
        let rules = reader.rules(&written.rules, "/rules", 0);
        let stream = written.stream.as_deref().and_then(|stream| reader.template(stream));
        let mut transform = Transform {
            stream,
            op: written.op.map(|op| (op.at, op.values)),
            rules,
            target: target.clone(),
            canonical: document.canonical(),
        };
        let mut checker = Checker { wrong: reader.wrong };
        checker.event(&transform, source);
        checker.rules(&mut transform.rules, source.root(), target.root(), "/rules");
        if checker.wrong.is_empty() { Ok(transform) } else { Err(checker.wrong) }
    }
}

mod types;

use types::{ANY, BOOLEAN, Found, LIST, NUMBER, OBJECT, TEXT, Types, find};

struct Checker {
    wrong: Vec<Violation>,
}

impl Checker {
    fn refuse(&mut self, place: &str, code: &str, message: impl Into<String>) {
        if self.wrong.len() < MOST_VIOLATIONS {
            self.wrong.push(Violation::new(place, code, message));
        }
    }

    /// Checks the stream and the operation of the event.
    fn event(&mut self, transform: &Transform, source: &Schema) {
        let pieces = transform.stream.iter().flat_map(|template| &template.0);
        for piece in pieces {
            if let Piece::Value(at) = piece {
                self.reads(at, source.root(), TEXT.or(NUMBER), "/stream");
            }
        }
        if let Some((at, values)) = &transform.op {
            self.reads(at, source.root(), TEXT, "/op");
            if let Found::Node(node) = find(source.root(), at)
                && let Kind::Choice(choices) = &*node.kind
            {
                for value in choices
                    .iter()
                    .filter_map(Value::as_str)
                    .filter(|text| !values.contains_key(*text))
                {
                    self.refuse(
                        "/op/enum",
                        "enum_value_unmapped",
                        format!("the source may have '{value}'"),
                    );
                }
            }
        }
    }

    /// Checks that a place exists in the source, with a type that can be read; returns the types it may have.
    fn reads(&mut self, at: &Pointer, source: &Node, wanted: Types, place: &str) -> Types {
        match find(source, at) {
            Found::Open => ANY,
            Found::Nowhere => {
                self.refuse(
                    place,
                    "source_path_unknown",
                    format!("the source has nothing at '{at}'"),
                );
                ANY
            }
            Found::Node(node) => {
                let types = Types::of(node);
                if types != Types(0) && !types.meets(wanted) {
                    let message = format!(
                        "the source has {} at '{at}', which the operation cannot read",
                        node.kind.words()
                    );
                    self.refuse(place, "source_type_mismatch", message);
                    return ANY;
                }
                types
            }
        }
    }

    fn rules(&mut self, rules: &mut [Rule], source: &Node, target: &Node, place: &str) {
        let targets: Vec<Pointer> = rules.iter().map(|rule| rule.to.clone()).collect();
        for (index, rule) in rules.iter_mut().enumerate() {
            let to = rule.to.clone();
            let twice =
                targets.iter().take(index).any(|other| other.contains(&to) || to.contains(other));
            if twice {
                let message = format!("'{to}' is set by another rule, too");
                self.refuse(&rule.place, "target_set_twice", message);
            }
            self.rule(rule, source, target);
        }
        self.filled(target, &targets, rules, &Pointer::default(), place);
    }

    fn rule(&mut self, rule: &mut Rule, source: &Node, target: &Node) {
        let place = rule.place.clone();
        let has_list = {
            // Elements of lists are made by each.
            let mut at = Pointer::default();
            rule.to.tokens().iter().any(|token| {
                let is_list = matches!(find(target, &at), Found::Node(node) if matches!(*node.kind, Kind::List(_)));
                at.push(token);
                is_list
            })
        };
        let node = match find(target, &rule.to) {
            Found::Node(node) if !has_list => Some(node),
            Found::Open => None,
            _ => {
                let message = format!("the target has nothing at '{}'", rule.to);
                return self.refuse(&place, "target_path_unknown", message);
            }
        };
        rule.allows_null = node.is_none_or(Node::allows_null);
        let answers = match &rule.operation {
            Operation::Enum { otherwise: Otherwise::Error(answer), .. } => [rule.on_error, *answer],
            _ => [rule.on_error, rule.on_error],
        };
        if answers.contains(&OnError::Null) && !rule.allows_null {
            let message =
                "the target cannot be null; choose another answer, or let the contract allow it";
            self.refuse(&place, "null_not_allowed", message);
        }
        if let (Some(default), Some(node)) = (&rule.default, node) {
            self.fits(default, node, &format!("{place}/default"));
        }
        self.operation(&mut rule.operation, source, node, &place);
    }

    /// Checks that a value is one of the target.
    fn fits(&mut self, value: &Value, node: &Node, place: &str) {
        if let Some(wrong) = node.first_violation(value, World::Closed) {
            let message = format!("the target refuses the value: {}", wrong.message);
            self.refuse(place, "value_not_in_target", message);
        }
    }

    /// Checks that results of some types can be what the target wants.
    fn makes(&mut self, types: Types, target: Option<&Node>, place: &str) {
        if let Some(node) = target
            && types != Types(0)
            && !types.meets(Types::of(node))
        {
            let message = format!(
                "the operation does not make {}, which the target wants",
                node.kind.words()
            );
            self.refuse(place, "target_type_mismatch", message);
        }
    }

    /// Checks that texts of a format are what the target wants.
    fn makes_format(&mut self, format: Format, target: Option<&Node>, place: &str) {
        self.makes(TEXT, target, place);
        if let Some(node) = target
            && let Kind::Text(TextRule::Format(wanted)) = &*node.kind
            && !format.is_within(*wanted)
        {
            let message = format!(
                "the operation makes {}, and the target wants {}",
                format.name(),
                wanted.name()
            );
            self.refuse(place, "target_type_mismatch", message);
        }
    }

    fn operation(
        &mut self,
        operation: &mut Operation,
        source: &Node,
        target: Option<&Node>,
        place: &str,
    ) {
        match operation {
            Operation::Copy { from, to_type, .. } => {
                let scalars = BOOLEAN.or(NUMBER).or(TEXT);
                let wanted = if *to_type == CopyAs::Same { ANY } else { scalars };
                let types = self.reads(from, source, wanted, place);
                let made = match to_type {
                    CopyAs::Same => types,
                    CopyAs::Text => TEXT,
                    CopyAs::Integer | CopyAs::Number => NUMBER,
                    CopyAs::Boolean => BOOLEAN,
                };
                self.makes(made, target, place);
            }
            Operation::Const(value) => {
                if let Some(node) = target {
                    self.fits(value, node, place);
                }
            }
            Operation::Rename { from, keys } => {
                self.reads(from, source, OBJECT, place);
                self.makes(OBJECT, target, place);
                for (old, new) in keys.iter() {
                    let types = self.reads(&from.child(old), source, ANY, place);
                    match target.map(|node| find(node, &Pointer::default().child(new))) {
                        Some(Found::Nowhere) => {
                            let message = format!("the target has no member '{new}'");
                            self.refuse(place, "target_path_unknown", message);
                        }
                        Some(Found::Node(node)) => self.makes(types, Some(node), place),
                        _ => {}
                    }
                }
            }
            Operation::Enum { .. } => self.enumeration(operation, source, target, place),
            Operation::Split { from, part, .. } => {
                self.reads(from, source, TEXT, place);
                self.makes(if part.is_some() { TEXT } else { LIST }, target, place);
            }
            Operation::Coalesce { from, .. } => {
                let types: Vec<Types> =
                    from.iter().map(|from| self.reads(from, source, ANY, place)).collect();
                self.makes(types.into_iter().fold(Types(0), Types::or), target, place);
            }
            Operation::Each { from, rules } => self.each(from, rules, source, target, place),
            scalar => self.scalar(scalar, source, target, place),
        }
    }

    fn each(
        &mut self,
        from: &Pointer,
        rules: &mut [Rule],
        source: &Node,
        target: Option<&Node>,
        place: &str,
    ) {
        self.reads(from, source, LIST, place);
        self.makes(LIST, target, place);
        let open = Node::any(String::new());
        let items = |found: Found<'_>| match found {
            Found::Node(node) => match &*node.kind {
                Kind::List(rule) => rule.items.as_deref().cloned(),
                _ => None,
            },
            _ => None,
        };
        let source = items(find(source, from)).unwrap_or_else(|| open.clone());
        let target = target.and_then(|node| items(Found::Node(node))).unwrap_or(open);
        self.rules(rules, &source, &target, &format!("{place}/rules"));
    }

    /// Checks the operations that make one scalar.
    fn scalar(&mut self, operation: &Operation, source: &Node, target: Option<&Node>, place: &str) {
        match operation {
            Operation::Date { from, .. } => {
                self.reads(from, source, TEXT, place);
                self.makes_format(Format::Date, target, place);
            }
            Operation::Instant { from, .. } => {
                self.reads(from, source, TEXT.or(NUMBER), place);
                self.makes_format(Format::Instant, target, place);
            }
            Operation::Money { amount: first, currency: second, .. } => {
                self.pair(first, second, source, place);
                self.makes_scalar(
                    &[("amount", "12.30"), ("currency", "EUR")],
                    Format::Money,
                    target,
                    place,
                );
            }
            Operation::Unit { value: first, unit: second, .. } => {
                self.pair(first, second, source, place);
                self.makes_scalar(
                    &[("value", "1.5"), ("unit", "kg")],
                    Format::Quantity,
                    target,
                    place,
                );
            }
            Operation::Phone { from, region, .. } => {
                self.reads(from, source, TEXT.or(NUMBER), place);
                if let Some(Given::At(at)) = region {
                    self.reads(at, source, TEXT.or(NUMBER), place);
                }
                self.makes_format(Format::Phone, target, place);
            }
            Operation::Email { from } => {
                self.reads(from, source, TEXT, place);
                self.makes_format(Format::Email, target, place);
            }
            _ => {}
        }
    }

    fn pair(&mut self, first: &Pointer, second: &Given, source: &Node, place: &str) {
        self.reads(first, source, TEXT.or(NUMBER), place);
        if let Given::At(at) = second {
            self.reads(at, source, TEXT, place);
        }
    }

    /// Checks that an object of a scalar is what the target wants.
    fn makes_scalar(
        &mut self,
        members: &[(&str, &str)],
        format: Format,
        target: Option<&Node>,
        place: &str,
    ) {
        let Some(node) = target else { return };
        let members = members.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
        let sample = Value::Object(members.collect::<Object>());
        if let Some(wrong) = node.first_violation(&sample, World::Closed)
            && ["type", "required", "unknown_member", "format"].contains(&wrong.code.as_str())
        {
            let message = format!(
                "the operation makes {}, which the target refuses: {}",
                format.name(),
                wrong.message
            );
            self.refuse(place, "target_type_mismatch", message);
        }
    }

    fn enumeration(
        &mut self,
        operation: &Operation,
        source: &Node,
        target: Option<&Node>,
        place: &str,
    ) {
        let Operation::Enum { from, map, countries, otherwise } = operation else { return };
        self.reads(from, source, BOOLEAN.or(NUMBER).or(TEXT), place);
        let results = map.values().chain(match otherwise {
            Otherwise::Value(value) => Some(value),
            Otherwise::Error(_) => None,
        });
        if let Some(node) = target {
            for value in results {
                self.fits(value, node, &format!("{place}/map"));
            }
        }
        if *countries {
            self.makes_format(Format::Country, target, place);
        }
        let Found::Node(node) = find(source, from) else { return };
        let values: Vec<Value> = match &*node.kind {
            Kind::Choice(values) => values.to_vec(),
            Kind::Boolean => vec![Value::Bool(true), Value::Bool(false)],
            _ => return,
        };
        if matches!(otherwise, Otherwise::Value(_)) {
            return;
        }
        for value in values.iter().filter(|value| !value.is_null()) {
            let key = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => Number::canonical(number),
                other => other.to_json(),
            };
            let known = map.contains_key(&key) || (*countries && country(value).is_ok());
            if !known {
                let message =
                    format!("the source may have '{key}'; map it, or give a value for all else");
                self.refuse(&format!("{place}/map"), "enum_value_unmapped", message);
            }
        }
    }

    /// Checks that every member that the target requires is filled.
    fn filled(
        &mut self,
        target: &Node,
        targets: &[Pointer],
        rules: &[Rule],
        at: &Pointer,
        place: &str,
    ) {
        if let Some(rule) = rules.iter().find(|rule| rule.to.contains(at)) {
            // A rule makes the whole; a rename makes what it names.
            if let (Operation::Rename { keys, .. }, Kind::Object(object)) =
                (&rule.operation, &*target.kind)
                && rule.to == *at
            {
                let names: BTreeSet<&String> = keys.values().collect();
                let members = object.members.iter().flatten();
                for (name, _) in
                    members.filter(|(name, member)| member.required && !names.contains(name))
                {
                    self.unfilled(&at.child(name), &rule.place);
                }
            }
            return;
        }
        let Kind::Object(object) = &*target.kind else { return };
        for (name, member) in object.members.iter().flatten() {
            let below = at.child(name);
            let is_target =
                targets.iter().any(|target| below.contains(target) || target.contains(&below));
            if is_target {
                self.filled(&member.node, targets, rules, &below, place);
            } else if member.required {
                self.unfilled(&below, place);
            }
        }
    }

    fn unfilled(&mut self, at: &Pointer, place: &str) {
        self.refuse(
            place,
            "required_target_unfilled",
            format!("the target requires '{at}', and no rule fills it"),
        );
    }
}
