//! What needs no daemon: manifests and a cluster file are enough.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{failure::Failure, files};
use crate::front::api::{
    dto::policies::{Matrix, ShowMatrix, TestReport, Validated},
    refusal::Refusal,
};
use crate::intent;
use crate::model::cluster::Cluster;

pub(super) fn validate(manifests: &[PathBuf], cluster: Option<&Path>) -> Result<Validated, Failure> {
    let documents = files::read(manifests)?;
    let read = || intent::read(documents.clone()).map_err(Failure::Refused);
    let validated = intent::validate(read()?).map_err(Failure::Refused)?;
    if let Some(path) = cluster {
        fitting(intent::describe(read()?, Some(files::document(path)?)))?;
    }
    Ok(validated)
}

pub(super) fn test(manifests: &[PathBuf], cluster: Option<&Path>) -> Result<TestReport, Failure> {
    let report = intent::test(&described(manifests, cluster)?);
    if report.expectations.is_empty() {
        // A test that tests nothing is not one that went well.
        return Err(Failure::Sentence("nothing is expected: write what has to hold below `expect:` of a manifest"));
    }
    Ok(report)
}

pub(super) fn matrix(manifests: &[PathBuf], cluster: Option<&Path>, request: &ShowMatrix) -> Result<Matrix, Failure> {
    intent::matrix(&described(manifests, cluster)?, None, request).map_err(Failure::Refused)
}

pub(super) fn schema() -> serde_json::Value {
    intent::schema()
}

/// The cluster that files describe.
fn described(manifests: &[PathBuf], cluster: Option<&Path>) -> Result<Cluster, Failure> {
    let manifest = if manifests.is_empty() { Ok(intent::nothing()) } else { intent::read(files::read(manifests)?) };
    let base = cluster.map(files::document).transpose()?;
    fitting(intent::describe(manifest.map_err(Failure::Refused)?, base))
}

/// The cluster, unless no host could enforce it.
fn fitting(described: Result<Cluster, Refusal>) -> Result<Cluster, Failure> {
    let cluster = described.map_err(Failure::Refused)?;
    let utc = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    intent::admit_alone(&cluster, utc).map_err(Failure::Refused)?;
    Ok(cluster)
}
