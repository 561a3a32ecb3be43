//! Gateways and simulated providers: what is not the cluster.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::config::GatewayPlace;
use super::process::{Process, Spec};
use super::{
    BACKENDS, Deployment, GATEWAY_HTTP_PORT, GATEWAY_PORT, GATEWAY_RATE_LIMIT_PORT, PROVIDER_PORT, Place,
    config,
};

const STOP_WITHIN: Duration = Duration::from_secs(40);

#[derive(Debug)]
pub struct Gateway {
    pub place: GatewayPlace,
    pub process: Option<Process>,
}

impl Deployment {
    /// A gateway more, which runs; its place.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn add_gateway(&self) -> Result<usize> {
        let number = self.gateways.lock().len();
        let place = Place::Gateway(number);
        if let Some(network) = &self.network {
            network.add(place)?;
        }
        let place = GatewayPlace {
            address: self.listen(place, GATEWAY_PORT)?,
            http: self.listen(place, GATEWAY_HTTP_PORT)?,
            rate_limit: self.listen(place, GATEWAY_RATE_LIMIT_PORT)?,
        };
        self.gateways.lock().push(Gateway { place, process: None });
        self.start_gateway(number)?;
        Ok(number)
    }

    pub fn gateway_count(&self) -> usize {
        self.gateways.lock().len()
    }

    /// Starts a gateway that does not run. It knows the nodes of now.
    ///
    /// # Errors
    /// There is none, or it cannot be started.
    pub fn start_gateway(&self, number: usize) -> Result<()> {
        let nodes = self.node_addresses();
        let place = {
            let gateways = self.gateways.lock();
            let gateway = gateways.get(number).with_context(|| format!("there is no gateway {number}"))?;
            if gateway.process.is_some() {
                return Ok(());
            }
            gateway.place.clone()
        };
        let name = config::gateway_name(number);
        let provider = |backend: &str| self.provider_address(backend).unwrap_or_default();
        let text = config::gateway(number, &place, &nodes, provider);
        let path = self.options.folder.join(format!("{name}.yaml"));
        std::fs::write(&path, text)?;
        let process = Process::start(&Spec {
            program: &self.options.binary,
            folder: &self.options.folder,
            name: &name,
            namespace: self.namespace(Place::Gateway(number)).as_deref(),
            environment: Vec::new(),
            arguments: vec!["gateway".into(), "--config".into(), path.into(), "--stop-at-eof".into()],
        })?;
        if let Some(gateway) = self.gateways.lock().get_mut(number) {
            gateway.process = Some(process);
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill_gateway(&self, number: usize) {
        if let Some(gateway) = self.gateways.lock().get_mut(number) {
            gateway.process = None;
        }
    }

    /// In good order.
    ///
    /// # Errors
    /// It does not end in time; then it is killed.
    pub async fn stop_gateway(&self, number: usize) -> Result<()> {
        let process = self.gateways.lock().get_mut(number).and_then(|gateway| gateway.process.take());
        let Some(mut process) = process else { return Ok(()) };
        process.signal(Signal::TERM)?;
        anyhow::ensure!(process.wait(STOP_WITHIN).await, "{} did not end on SIGTERM", process.name());
        Ok(())
    }

    /// Starts the provider of a backend, if it does not run; where it was before, if it was.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_provider(&self, place: usize) -> Result<()> {
        let known = {
            let providers = self.providers.lock();
            match providers.get(place) {
                Some((_, Some(_))) => return Ok(()),
                Some((address, None)) => Some(address.clone()),
                None => None,
            }
        };
        let port = PROVIDER_PORT + u16::try_from(place)?;
        let address = known.map_or_else(|| self.listen(Place::Providers, port), Ok)?;
        let process = Process::start(&Spec {
            program: &self.options.binary,
            folder: &self.options.folder,
            name: &format!("provider-{}", BACKENDS[place].0),
            namespace: self.namespace(Place::Providers).as_deref(),
            environment: Vec::new(),
            arguments: vec![
                "mock-provider".into(),
                "--listen".into(),
                address.clone().into(),
                "--stop-at-eof".into(),
            ],
        })?;
        let mut providers = self.providers.lock();
        match providers.get_mut(place) {
            Some(provider) => provider.1 = Some(process),
            None => providers.push((address, Some(process))),
        }
        Ok(())
    }
}
