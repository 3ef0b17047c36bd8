//! The senders: two vendors with customers in shapes of their own, a third system with orders, the contracts and
//! transforms between them, and the workflows for each customer and order.

use serde_json::{Value, json};

/// Returns a contract, by its subject, and the schema of its first version.
pub(super) fn contracts() -> [(&'static str, Value); 5] {
    let text = || json!({"type": "string"});
    let object = |members: Value, required: Value| json!({"type": "object", "properties": members, "required": required});
    let contact = object(contact_members(), json!(["id", "full_name", "mail", "st"]));
    let person = object(json!({"name": text(), "email": text()}), json!(["name"]));
    let buyer = object(
        json!({"no": text(), "person": person, "state": text()}),
        json!(["no", "person", "state"]),
    );
    let statuses = json!({"enum": ["active", "inactive"]});
    let customer = object(
        json!({"id": text(), "name": text(), "email": text(), "status": statuses}),
        json!(["id", "name", "status"]),
    );
    let sale =
        object(json!({"nr": text(), "cust": text(), "sum": text()}), json!(["nr", "cust", "sum"]));
    let order = object(
        json!({"id": text(), "customer": text(), "total": text()}),
        json!(["id", "customer", "total"]),
    );
    [
        ("crm.contact", contact),
        ("web.buyer", buyer),
        ("erp.sale", sale),
        ("customer", customer),
        ("order", order),
    ]
}

fn contact_members() -> Value {
    let text = json!({"type": "string"});
    json!({"id": text, "full_name": text, "mail": text, "st": text})
}

/// Returns the second version of the contacts: some have no mail.
pub(super) fn contact_without_mail() -> Value {
    json!({"type": "object", "properties": contact_members(), "required": ["id", "full_name", "st"]})
}

/// Returns the transform of contacts, with what their states mean.
pub(super) fn of_contacts(states: &Value) -> Value {
    json!({"stream": "customer:{/id}", "rules": [
        {"to": "/id", "copy": "/id"},
        {"to": "/name", "copy": "/full_name"},
        {"to": "/email", "copy": "/mail"},
        {"to": "/status", "enum": "/st", "map": states},
    ]})
}

/// States of contacts as somebody believed them to be, and as they are.
pub(super) fn states(all: bool) -> Value {
    match all {
        false => json!({"A": "active", "I": "inactive"}),
        true => json!({"A": "active", "I": "inactive", "P": "inactive"}),
    }
}

/// Returns the other transforms, by their ends.
pub(super) fn transforms() -> [(&'static str, Value); 2] {
    let buyers = json!({"stream": "customer:{/no}", "rules": [
        {"to": "/id", "copy": "/no"},
        {"to": "/name", "copy": "/person/name"},
        {"to": "/email", "copy": "/person/email"},
        {"to": "/status", "enum": "/state", "map": {"on": "active", "off": "inactive"}},
    ]});
    let sales = json!({"stream": "order:{/nr}", "rules": [
        {"to": "/id", "copy": "/nr"},
        {"to": "/customer", "copy": "/cust"},
        {"to": "/total", "copy": "/sum"},
    ]});
    [("web.buyer/1/customer/1", buyers), ("erp.sale/1/order/1", sales)]
}

/// Returns the spec of a source whose documents follow a version of a contract and become ours.
pub(super) fn source(contract: &str, version: u32, to: &str, dedupe: &[&str]) -> Value {
    let dedupe: Vec<Value> = dedupe.iter().map(|place| json!({"pointer": place})).collect();
    json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": contract, "to": to}],
        "version_from": {"fixed": version}, "dedupe": dedupe,
    })
}

/// Returns the workflows for a customer and an order: an order waits for its customer.
pub(super) fn workflows() -> [Value; 2] {
    let step = |emits: Value| json!([{"id": "note", "sleep": {"for": "1ms"}, "emits": [emits]}]);
    let known = |on: &str| json!([{"fact": "customer.known", "on": {"path": on}}]);
    [
        json!({"name": "know-customer", "version": 1, "sequence": {"produces": known("/input/id")},
            "steps": step(json!({"type": "customer.known", "entity": "customer", "stream": {"path": "/input/id"},
                "data": {"path": "/input"}}))}),
        json!({"name": "accept-order", "version": 1, "sequence": {"requires": known("/input/customer")},
            "steps": step(json!({"type": "order.accepted", "entity": "order", "stream": {"path": "/input/id"},
                "data": {"path": "/input"}}))}),
    ]
}

/// Returns the subscriptions: workflows are started for new entities, not for repeated messages.
pub(super) fn subscriptions() -> [(&'static str, Value); 2] {
    let spec = |of: &str, workflow: &str| json!({"filter": {"types": [of], "ops": ["C"]}, "workflow": workflow, "input": "data"});
    [("customers", spec("customer", "know-customer")), ("orders", spec("order", "accept-order"))]
}

pub(super) fn contact(id: &str, name: &str, mail: Option<&str>, state: &str) -> Value {
    let mut contact = json!({"id": id, "full_name": name, "st": state});
    if let Some(mail) = mail {
        contact["mail"] = mail.into();
    }
    contact
}

pub(super) fn buyer(no: &str, name: &str, email: &str) -> Value {
    json!({"no": no, "person": {"name": name, "email": email}, "state": "on"})
}

pub(super) fn sale(nr: &str, customer: &str, sum: &str) -> Value {
    json!({"nr": nr, "cust": customer, "sum": sum})
}
