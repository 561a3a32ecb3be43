//! The backends of `quorate dev`: the simulated provider in the place of whatever backends a policy names, each in the API of
//! its own kind, so that a policy can be tried out as it is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use quorate_gateway::{AwsConfig, BackendConfig, Provider};

use crate::mock_provider::AwsAccount;

/// `provider`: where the simulated one listens. `folder`: where what it wants to be shown is written; keys of no worth.
pub fn simulated(provider: &str, folder: &Path) -> Result<Vec<BackendConfig>> {
    let (root, versioned) = (format!("http://{provider}"), format!("http://{provider}/v1"));
    let stand_in = |name: &str, provider: Provider, base_url: &str| BackendConfig {
        stand_in: true,
        ..BackendConfig::new(name, provider, base_url.to_owned())
    };
    let account = AwsAccount::default();
    let aws = |name: &str, provider: Provider, credentials: &Path| BackendConfig {
        region: Some(account.region.clone()),
        aws: AwsConfig { credentials_file: Some(credentials.to_owned()), ..AwsConfig::default() },
        ..stand_in(name, provider, &root)
    };
    let credentials = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        account.access_key_id, account.secret_access_key
    );
    let credentials = written(folder, "simulated-aws-credentials", &credentials)?;
    let key = written(folder, "simulated-api-key", "simulated\n")?;
    Ok(vec![
        stand_in("mock", Provider::OpenAI, &versioned),
        BackendConfig { api_key_file: Some(key), ..stand_in("mock-azure", Provider::AzureOpenAI, &root) },
        stand_in("mock-anthropic", Provider::Anthropic, &versioned),
        aws("mock-bedrock", Provider::AWSBedrock, &credentials),
        aws("mock-bedrock-anthropic", Provider::AWSAnthropic, &credentials),
    ])
}

fn written(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
