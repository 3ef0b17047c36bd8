//! The OpenAPI schema of an expression, by hand: a derived one would never end.

use utoipa::openapi::schema::{AdditionalProperties, Object, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{Array, ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Expr;

impl ToSchema for Expr {}

impl PartialSchema for Expr {
    fn schema() -> RefOr<Schema> {
        let expr = || Ref::from_schema_name(Expr::name());
        let path = || Object::with_type(Type::String);
        let list = || Array::new(expr());
        let pair =
            || ArrayBuilder::new().items(expr()).min_items(Some(2)).max_items(Some(2)).build();
        let members = ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::from(expr())));
        let any = Schema::Object(ObjectBuilder::new().schema_type(SchemaType::AnyValue).build());
        let mut operators: Vec<(&str, RefOr<Schema>)> = vec![
            ("path", path().into()),
            ("const", any.into()),
            ("object", members.build().into()),
            ("array", list().into()),
            ("and", list().into()),
            ("or", list().into()),
            ("not", expr().into()),
            ("exists", path().into()),
            ("length", expr().into()),
        ];
        for operator in ["eq", "ne", "lt", "le", "gt", "ge", "default"] {
            operators.push((operator, pair().into()));
        }
        let mut schema = OneOfBuilder::new().description(Some(
            "An expression: an object with one member, its operator. Paths are JSON Pointers into `input`, `steps` \
             (outputs by step id) and, inside a map, `item` and `index`.",
        ));
        for (operator, operand) in operators {
            let object = ObjectBuilder::new()
                .schema_type(Type::Object)
                .property(operator, operand)
                .required(operator);
            schema = schema.item(object);
        }
        schema.examples([serde_json::json!({ "path": "/input/customer" })]).into()
    }
}
