//! Contracts: registering and checking the shapes of documents.

use backstitch_saga::Payload;
use backstitch_saga::protocol::{
    ActivateTransform, ContractCheck, ContractLine, ContractReaderView, ContractVersionView,
    ContractView, PinReader, PutTransform, RegisterContract, TestTransform, TransformLine,
    TransformTest, TransformView,
};
use reqwest::Method;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};

use super::{Client, ClientError, Pages, read};

/// Returns the schema of a type as a version of a contract: as the type is written, without the widths of its numbers,
/// which the checkable subset does not know.
///
/// # Errors
/// A type whose schema has no JSON form.
pub fn contract_of<T: JsonSchema>() -> Result<RegisterContract, serde_json::Error> {
    let without_widths = RecursiveTransform(|schema: &mut Schema| {
        let format = schema.get("format").and_then(|format| format.as_str()).unwrap_or_default();
        if ["int", "uint", "float", "double"].iter().any(|width| format.starts_with(width)) {
            schema.remove("format");
        }
    });
    let settings = SchemaSettings::draft2020_12().with_transform(without_widths);
    let schema = settings.for_serialize().into_generator().into_root_schema_for::<T>();
    Ok(RegisterContract {
        schema: Payload::of(&schema)?,
        mode: None,
        up: None,
        down: None,
        reason: String::new(),
    })
}

impl Client {
    /// Registers a version of a contract. The same schema again, however it is spelt, is the same version.
    ///
    /// # Errors
    /// A problem `incompatible_schema` whose `breaks` say why, `transform_required`, `invalid_schema`.
    pub async fn register_contract(
        &self,
        subject: &str,
        contract: &RegisterContract,
    ) -> Result<ContractVersionView, ClientError> {
        let path = self.place(&["contracts", subject, "versions"]);
        read(self.send(self.request(Method::POST, &path)?.json(contract)).await?)
    }

    /// Checks a version of a contract without registering it.
    ///
    /// # Errors
    /// A problem `invalid_schema` or `invalid_transform`.
    pub async fn check_contract(
        &self,
        subject: &str,
        contract: &RegisterContract,
    ) -> Result<ContractCheck, ClientError> {
        let path = self.place(&["contracts", subject, "check"]);
        read(self.send(self.request(Method::POST, &path)?.json(contract)).await?)
    }

    /// Lists contracts by subject.
    #[must_use]
    pub fn contracts(&self) -> Pages<ContractLine> {
        Pages::new(self, "v1/contracts".to_owned(), Vec::new())
    }

    /// Returns a contract with its versions and readers.
    ///
    /// # Errors
    /// A problem `unknown_contract`.
    pub async fn contract(&self, subject: &str) -> Result<ContractView, ClientError> {
        self.read_from(&self.place(&["contracts", subject])).await
    }

    /// Returns a version of a contract with its schema.
    ///
    /// # Errors
    /// A problem `unknown_contract` or `unknown_contract_version`.
    pub async fn contract_version(
        &self,
        subject: &str,
        version: u32,
    ) -> Result<ContractVersionView, ClientError> {
        let version = version.to_string();
        self.read_from(&self.place(&["contracts", subject, "versions", &version])).await
    }

    /// Pins a reader to a version of a contract, which cannot be retired then.
    ///
    /// # Errors
    /// A problem `version_retired`, `unknown_contract_version` or `contract_full`.
    pub async fn pin_contract_reader(
        &self,
        subject: &str,
        reader: &str,
        pin: &PinReader,
    ) -> Result<ContractReaderView, ClientError> {
        let path = self.place(&["contracts", subject, "readers", reader]);
        read(self.send(self.request(Method::PUT, &path)?.json(pin)).await?)
    }

    /// Lists transforms by source and target.
    #[must_use]
    pub fn transforms(&self) -> Pages<TransformLine> {
        Pages::new(self, "v1/transforms".to_owned(), Vec::new())
    }

    /// Returns a transform between two versions of contracts with its revisions.
    ///
    /// # Errors
    /// A problem `unknown_transform`.
    pub async fn transform(
        &self,
        from: (&str, u32),
        to: (&str, u32),
    ) -> Result<TransformView, ClientError> {
        self.read_from(&self.place_of_transform(from, to, &[])).await
    }

    /// Registers a revision of a transform. The same as the newest revision is that revision.
    ///
    /// # Errors
    /// A problem `invalid_transform` with everything that is wrong, `unknown_contract`, `version_retired`.
    pub async fn put_transform(
        &self,
        from: (&str, u32),
        to: (&str, u32),
        transform: &PutTransform,
    ) -> Result<TransformView, ClientError> {
        let path = self.place_of_transform(from, to, &[]);
        read(self.send(self.request(Method::PUT, &path)?.json(transform)).await?)
    }

    /// Uses a revision of a transform from now on.
    ///
    /// # Errors
    /// A problem `unknown_transform` or `unknown_revision`.
    pub async fn activate_transform(
        &self,
        from: (&str, u32),
        to: (&str, u32),
        ask: &ActivateTransform,
    ) -> Result<TransformView, ClientError> {
        let path = self.place_of_transform(from, to, &["activate"]);
        read(self.send(self.request(Method::POST, &path)?.json(ask)).await?)
    }

    /// Maps a document by a transform without writing anything, and returns the action of each
    /// rule.
    ///
    /// # Errors
    /// A problem `invalid_document`, `invalid_transform` or `unknown_transform`.
    pub async fn test_transform(
        &self,
        from: (&str, u32),
        to: (&str, u32),
        ask: &TestTransform,
    ) -> Result<TransformTest, ClientError> {
        let path = self.place_of_transform(from, to, &["test"]);
        read(self.send(self.request(Method::POST, &path)?.json(ask)).await?)
    }

    fn place_of_transform(&self, from: (&str, u32), to: (&str, u32), act: &[&str]) -> String {
        let (from_version, to_version) = (from.1.to_string(), to.1.to_string());
        let ends = ["transforms", from.0, &from_version, to.0, &to_version];
        self.place(&[&ends, act].concat())
    }
}
