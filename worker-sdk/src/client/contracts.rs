//! Contracts: registering and checking the shapes of documents.

use backstitch_saga::Payload;
use backstitch_saga::protocol::{
    ContractCheck, ContractLine, ContractReaderView, ContractVersionView, ContractView, PinReader,
    RegisterContract,
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
}
