//! Executes a transform on a document, within bounds, and keeps what was changed and what was not mapped.

use super::document::OnError;
use super::evaluate::{Made, NotMade, evaluate};
use super::outcome::{Failure, Limits, Mapped, Outcome, TraceLine};
use super::rule::{Operation, Piece, Rule, Template, Transform};
use super::touched::Touched;
use crate::canonical::{Change, Refused, shown};
use crate::contracts::World;
use crate::document::{Object, Pointer, Value};
use crate::events::Op;

impl Transform {
    /// Maps a document.
    #[must_use]
    pub fn run(&self, source: &Value, limits: &Limits) -> Outcome {
        self.execute(source, limits, false).0
    }

    /// Maps a document, and returns the action of each rule.
    #[must_use]
    pub fn test(&self, source: &Value, limits: &Limits) -> (Outcome, Vec<TraceLine>) {
        self.execute(source, limits, true)
    }

    fn execute(&self, source: &Value, limits: &Limits, traced: bool) -> (Outcome, Vec<TraceLine>) {
        let mut run = Run {
            limits,
            traced,
            touched: Touched::default(),
            changes: Vec::new(),
            changes_left_out: 0,
            failures: Vec::new(),
            trace: Vec::new(),
            steps: 0,
            bytes: 0,
            stopped: false,
        };
        let mut body = Value::Object(Object::new());
        let root = Pointer::default();
        run.rules(&self.rules, source, &root, &mut body, &root);
        let stream = self.stream.as_ref().and_then(|template| run.stream(template, source));
        let op = self.op.as_ref().and_then(|(at, values)| run.op(at, values, source));
        if run.failures.is_empty() {
            for wrong in self.target.violations(&body, World::Closed) {
                let at = Pointer::parse(&wrong.pointer).unwrap_or_default();
                let value = at.find(&body).cloned().unwrap_or(Value::Null);
                run.fail(Failure {
                    pointer: at,
                    code: format!("result_{}", wrong.code),
                    message: format!("the result does not follow its contract: {}", wrong.message),
                    value: shown(&value),
                    rule: String::new(),
                    reject: false,
                });
            }
            if body.depth() > limits.depth {
                let message = format!("the result is nested more than {} deep", limits.depth);
                run.stop("output_too_deep", message);
            }
        }
        if !run.failures.is_empty() {
            return (Outcome::Failed(run.failures), run.trace);
        }
        let unmapped = run.touched.left(source);
        let (changes, changes_left_out) = (run.changes, run.changes_left_out);
        let mapped = Mapped { body, stream, op, changes, changes_left_out, unmapped };
        (Outcome::Mapped(Box::new(mapped)), run.trace)
    }
}

struct Run<'a> {
    limits: &'a Limits,
    traced: bool,
    touched: Touched,
    changes: Vec<Change>,
    changes_left_out: usize,
    failures: Vec<Failure>,
    trace: Vec<TraceLine>,
    steps: usize,
    bytes: usize,
    stopped: bool,
}

impl Run<'_> {
    /// Applies rules to `context`, which is at `source_path`, and writes to `out`, which is at `out_path`.
    fn rules(
        &mut self,
        rules: &[Rule],
        context: &Value,
        source_path: &Pointer,
        out: &mut Value,
        out_path: &Pointer,
    ) {
        for rule in rules {
            self.steps += rule.operation.steps();
            if self.steps > self.limits.steps {
                let message = format!("more than {} rules would be evaluated", self.limits.steps);
                self.stop("too_many_steps", message);
            }
            if self.stopped {
                return;
            }
            match &rule.operation {
                Operation::Each { from, rules } => {
                    self.each(rule, from, rules, context, source_path, out, out_path);
                }
                operation => {
                    for read in operation.reads() {
                        self.touch(operation, read, context, source_path);
                    }
                    let made = evaluate(operation, context);
                    self.settle(rule, made, source_path, out, out_path);
                }
            }
        }
    }

    /// Remembers what an operation read. A rename reads the members that it names alone.
    fn touch(
        &mut self,
        operation: &Operation,
        read: &Pointer,
        context: &Value,
        source_path: &Pointer,
    ) {
        let found = read.find(context);
        let at = source_path.join(read);
        match (operation, found) {
            (_, None) => {}
            (Operation::Rename { keys, .. }, Some(Value::Object(_))) => {
                keys.keys().for_each(|key| self.touched.mark(&at.child(key)));
            }
            _ => self.touched.mark(&at),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the two documents and their places")]
    fn each(
        &mut self,
        rule: &Rule,
        from: &Pointer,
        rules: &[Rule],
        context: &Value,
        source_path: &Pointer,
        out: &mut Value,
        out_path: &Pointer,
    ) {
        let at = source_path.join(from);
        let elements = match from.find(context) {
            None => return self.settle(rule, Ok(Made::Absent), source_path, out, out_path),
            Some(Value::Null) => {
                self.touched.mark(&at);
                return self.settle(rule, Ok(Made::Null), source_path, out, out_path);
            }
            Some(Value::Array(elements)) => elements,
            Some(other) => {
                let message =
                    format!("{} has no elements; each goes through a list", other.words());
                let refused = Refused::new("not_a_list", message);
                let not_made =
                    NotMade { at: from.clone(), value: other.clone(), refused, answer: None };
                return self.settle(rule, Err(not_made), source_path, out, out_path);
            }
        };
        if elements.is_empty() {
            self.touched.mark(&at);
        }
        let target = out_path.join(&rule.to);
        let mut made = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            if self.stopped {
                return;
            }
            let token = index.to_string();
            let mut item = Value::Object(Object::new());
            self.rules(rules, element, &at.child(&token), &mut item, &target.child(&token));
            made.push(item);
        }
        self.line(
            rule,
            "set",
            &Value::Null,
            &Value::from(i64::try_from(made.len()).unwrap_or(i64::MAX)),
            None,
        );
        set(out, &rule.to, Value::Array(made));
    }

    /// Writes the result of an operation, or answers that it has none.
    fn settle(
        &mut self,
        rule: &Rule,
        made: Result<Made, NotMade>,
        source_path: &Pointer,
        out: &mut Value,
        out_path: &Pointer,
    ) {
        let path = out_path.join(&rule.to);
        match made {
            Ok(Made::Value { from, to }) => {
                let is_constant = matches!(rule.operation, Operation::Const(_));
                // A scalar in two members is changed only if one of the two is.
                if !is_constant && from != to && !matches!(rule.operation, Operation::Rename { .. })
                {
                    self.change(&path, &from, &to, rule, rule.operation.name());
                }
                self.line(rule, "set", &from, &to, None);
                self.write(out, rule, to);
            }
            Ok(Made::Null) if rule.allows_null && rule.default.is_none() && !rule.required => {
                self.line(rule, "null", &Value::Null, &Value::Null, None);
                self.write(out, rule, Value::Null);
            }
            Ok(made @ (Made::Absent | Made::Null)) => {
                self.missing(rule, &made, source_path, out, &path);
            }
            Err(not_made) => self.refused(rule, not_made, source_path, out, &path),
        }
    }

    fn missing(
        &mut self,
        rule: &Rule,
        made: &Made,
        source_path: &Pointer,
        out: &mut Value,
        path: &Pointer,
    ) {
        if let Some(default) = &rule.default {
            if !default.is_null() {
                self.change(path, &Value::Null, default, rule, "default");
            }
            self.line(rule, "default", &Value::Null, default, None);
            self.write(out, rule, default.clone());
        } else if rule.required {
            let reads = rule.operation.reads();
            let at = reads.first().map(|read| source_path.join(read)).unwrap_or_default();
            let what = if matches!(made, Made::Null) { "null" } else { "missing" };
            let refused =
                Refused::new("value_missing", format!("the value is required and {what}"));
            self.refuse(rule, &at, &Value::Null, &refused, rule.on_error);
        } else {
            self.line(rule, "absent", &Value::Null, &Value::Null, None);
        }
    }

    fn refused(
        &mut self,
        rule: &Rule,
        not_made: NotMade,
        source_path: &Pointer,
        out: &mut Value,
        path: &Pointer,
    ) {
        let NotMade { at, value, refused, answer } = not_made;
        let at = source_path.join(&at);
        match answer.unwrap_or(rule.on_error) {
            OnError::Null => {
                self.change(path, &value, &Value::Null, rule, refused.code);
                self.line(rule, "null", &value, &Value::Null, Some(&refused));
                self.write(out, rule, Value::Null);
            }
            OnError::KeepRaw => {
                self.change(path, &value, &value, rule, refused.code);
                self.line(rule, "kept_raw", &value, &value, Some(&refused));
                self.write(out, rule, value);
            }
            answer => self.refuse(rule, &at, &value, &refused, answer),
        }
    }

    fn refuse(
        &mut self,
        rule: &Rule,
        at: &Pointer,
        value: &Value,
        refused: &Refused,
        answer: OnError,
    ) {
        self.line(rule, "failed", value, &Value::Null, Some(refused));
        self.fail(Failure {
            pointer: at.clone(),
            code: refused.code.to_owned(),
            message: refused.message.clone(),
            value: shown(value),
            rule: rule.place.clone(),
            reject: answer == OnError::Reject,
        });
    }

    fn fail(&mut self, failure: Failure) {
        if self.failures.len() < self.limits.listed {
            self.failures.push(failure);
        }
    }

    /// Ends the execution.
    fn stop(&mut self, code: &str, message: String) {
        if !self.stopped {
            self.stopped = true;
            // The reason is listed, also where the list is full.
            self.failures.truncate(self.limits.listed.saturating_sub(1));
            self.failures.push(Failure {
                pointer: Pointer::default(),
                code: code.to_owned(),
                message,
                value: Value::Null,
                rule: String::new(),
                reject: false,
            });
        }
    }

    fn write(&mut self, out: &mut Value, rule: &Rule, value: Value) {
        self.bytes +=
            value.size() + rule.to.tokens().iter().map(|token| token.len() + 4).sum::<usize>();
        if self.bytes > self.limits.output_bytes {
            let message = format!("the result has more than {} bytes", self.limits.output_bytes);
            return self.stop("output_too_large", message);
        }
        set(out, &rule.to, value);
    }

    fn change(&mut self, path: &Pointer, from: &Value, to: &Value, rule: &Rule, reason: &str) {
        if self.changes.len() >= self.limits.listed {
            self.changes_left_out += 1;
            return;
        }
        self.changes.push(Change {
            path: path.clone(),
            from: shown(from),
            to: shown(to),
            rule: rule.place.clone(),
            reason: reason.to_owned(),
        });
    }

    fn line(
        &mut self,
        rule: &Rule,
        result: &'static str,
        from: &Value,
        to: &Value,
        refused: Option<&Refused>,
    ) {
        if !self.traced || self.trace.len() >= self.limits.listed {
            return;
        }
        self.trace.push(TraceLine {
            rule: rule.place.clone(),
            operation: rule.operation.name(),
            to: rule.to.clone(),
            result,
            from: shown(from),
            value: shown(to),
            code: refused.map(|refused| refused.code.to_owned()),
            message: refused.map(|refused| refused.message.clone()),
        });
    }

    fn stream(&mut self, template: &Template, source: &Value) -> Option<String> {
        let mut stream = String::new();
        for piece in &template.0 {
            match piece {
                Piece::Text(text) => stream.push_str(text),
                Piece::Value(at) => match at.find(source) {
                    Some(Value::String(text)) if !text.is_empty() => stream.push_str(text),
                    Some(Value::Number(number)) => stream.push_str(&number.canonical()),
                    found => {
                        let value = found.cloned().unwrap_or(Value::Null);
                        let message =
                            "the key of the stream is missing, or is no text and no number";
                        self.fail_at("/stream", at, "stream_key_not_valid", message, &value);
                        return None;
                    }
                },
            }
        }
        if stream.len() > LONGEST_STREAM || stream.chars().any(char::is_control) {
            let message = "a stream has at most 256 bytes, and no control characters";
            let at = template.0.iter().find_map(|piece| match piece {
                Piece::Value(at) => Some(at.clone()),
                Piece::Text(_) => None,
            });
            self.fail_at(
                "/stream",
                &at.unwrap_or_default(),
                "stream_key_not_valid",
                message,
                &Value::from(stream),
            );
            return None;
        }
        Some(stream)
    }

    fn op(
        &mut self,
        at: &Pointer,
        values: &std::collections::BTreeMap<String, Op>,
        source: &Value,
    ) -> Option<Op> {
        self.touched.mark(at);
        let value = at.find(source).cloned().unwrap_or(Value::Null);
        let op = value.as_str().and_then(|text| values.get(text)).copied();
        if op.is_none() {
            let message = "the value says no operation by the transform; add it to 'op'";
            self.fail_at("/op", at, "op_unknown", message, &value);
        }
        op
    }

    fn fail_at(&mut self, rule: &str, at: &Pointer, code: &str, message: &str, value: &Value) {
        self.fail(Failure {
            pointer: at.clone(),
            code: code.to_owned(),
            message: message.to_owned(),
            value: shown(value),
            rule: rule.to_owned(),
            reject: false,
        });
    }
}

/// The most bytes of the name of a stream.
const LONGEST_STREAM: usize = 256;

/// Puts a value at a place, and makes the objects on the way.
fn set(out: &mut Value, to: &Pointer, value: Value) {
    let Some((last, way)) = to.tokens().split_last() else {
        *out = value;
        return;
    };
    let mut at = out;
    for token in way {
        at = object(at).entry(token.clone()).or_insert_with(|| Value::Object(Object::new()));
    }
    object(at).insert(last.clone(), value);
}

/// Returns the members of an object; anything else becomes one. Targets do not overlap, so nothing is lost.
fn object(value: &mut Value) -> &mut Object {
    if value.as_object().is_none() {
        *value = Value::Object(Object::new());
    }
    match value {
        Value::Object(members) => members,
        _ => unreachable!("it was made an object"),
    }
}
