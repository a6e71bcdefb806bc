//! Applications and services: what clients have asked for, as stored objects.
//!
//! Pure: a plain struct with functions; ids and time are handed in. Each change notes what
//! has to be written, and its owner makes that durable before anybody hears of the change.
//!
//! ```text
//! service:  present ──delete──► removed ──last instance gone──► forgotten
//! ```
//!
//! Invariants:
//! - name, namespace and owner together name one application;
//! - name and namespace together name one present service of an application;
//! - an application's services are there as long as the application;
//! - what belongs to somebody is handed out against an [`Access`] only.

mod draft;
mod record;

pub use draft::{Draft, DraftApplication, DraftService};
pub use record::{Application, Counter, Service};

use crate::auth::Access;
use crate::refusal::Refusal;
use crate::storage::{self, Key, StorageError, Write};
use marram_protocol::id::{ApplicationId, InstanceId, ServiceId};
use marram_protocol::sla::SERVICES_MAX;
use marram_store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// Services of one root, those being taken down included: as many as instances in a cluster.
pub const SERVICES_TOTAL_MAX: usize = 10_000;

/// Applications of one root; each takes memory even without services.
pub const APPLICATIONS_TOTAL_MAX: usize = 10_000;

/// All documents together, since they are held in memory: 32 of the largest that is taken.
pub const DOCUMENT_BYTES_TOTAL_MAX: usize = 32 * 1024 * 1024;

/// All applications and services.
#[derive(Debug, Default)]
pub struct Catalog {
    applications: BTreeMap<ApplicationId, Application>,
    names: BTreeMap<(String, String, String), ApplicationId>,
    services: BTreeMap<ServiceId, (Service, Counter)>,
    /// Present services in their order.
    members: BTreeMap<ApplicationId, BTreeMap<u32, ServiceId>>,
    document_bytes: usize,
    writes: Vec<Write>,
}

impl Catalog {
    /// Reads everything.
    pub fn load(store: &dyn Store) -> Result<Self, StorageError> {
        let mut catalog = Self::default();
        for (key, value) in storage::load(store, storage::APPLICATION_PREFIX)? {
            catalog.insert_application(storage::decode(&key, &value)?);
        }
        let mut counters: BTreeMap<Vec<u8>, Counter> = BTreeMap::new();
        for (key, value) in storage::load(store, storage::COUNTER_PREFIX)? {
            counters.insert(key.clone(), storage::decode(&key, &value)?);
        }
        for (key, value) in storage::load(store, storage::SERVICE_PREFIX)? {
            let service: Service = storage::decode(&key, &value)?;
            let counter = counters.remove(&Key::Counter(service.id).encode()).unwrap_or_default();
            catalog.insert_service(service, counter);
        }
        Ok(catalog)
    }

    /// What has to be made durable, since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// All applications that a caller may see.
    pub fn applications<'a>(
        &'a self,
        access: &'a Access,
    ) -> impl Iterator<Item = &'a Application> + 'a {
        self.applications.values().filter(|application| access.may(&application.owner))
    }

    /// An application; one of somebody else is none.
    pub fn application(&self, access: &Access, id: ApplicationId) -> Result<&Application, Refusal> {
        let found = self.applications.get(&id).filter(|found| access.may(&found.owner));
        found.ok_or_else(|| Refusal::not_found("application", id))
    }

    /// A present service; one of somebody else is none.
    pub fn service(&self, access: &Access, id: ServiceId) -> Result<&Service, Refusal> {
        let found = self.services.get(&id);
        let found = found.filter(|(found, counter)| !counter.removed && access.may(&found.owner));
        found.map(|(found, _)| found).ok_or_else(|| Refusal::not_found("service", id))
    }

    /// The service of an instance, also while it is being taken down.
    pub fn service_of(&self, access: &Access, id: InstanceId) -> Result<&Service, Refusal> {
        let found = self.services.get(&id.service).filter(|(found, _)| access.may(&found.owner));
        found.map(|(found, _)| found).ok_or_else(|| Refusal::not_found("instance", id))
    }

    /// A service whoever it belongs to, for what the root does of itself.
    pub fn any_service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(&id).map(|(service, _)| service)
    }

    /// Number of the next instance of a service.
    pub fn next_instance_number(&self, id: ServiceId) -> u32 {
        self.services.get(&id).map_or(0, |(_, counter)| counter.next_instance_number)
    }

    /// Ids of an application's present services, in their order.
    pub fn members(&self, id: ApplicationId) -> impl Iterator<Item = ServiceId> + '_ {
        self.members.get(&id).into_iter().flat_map(|members| members.values().copied())
    }

    /// All present services that a caller may see, application by application.
    pub fn services<'a>(&'a self, access: &'a Access) -> impl Iterator<Item = &'a Service> + 'a {
        let ids = self.applications(access).flat_map(|application| self.members(application.id));
        ids.filter_map(|id| self.any_service(id))
    }

    /// The application of that name that belongs to the caller.
    pub fn find_application(
        &self,
        access: &Access,
        name: &str,
        namespace: &str,
    ) -> Option<&Application> {
        let key = (access.user().to_owned(), name.to_owned(), namespace.to_owned());
        self.applications.get(self.names.get(&key)?)
    }

    /// The present service of that name in an application.
    pub fn find_service(&self, id: ApplicationId, name: &str, namespace: &str) -> Option<&Service> {
        let mut services = self.members(id).filter_map(|id| self.any_service(id));
        services.find(|service| service.name == name && service.namespace == namespace)
    }

    /// Makes all applications of a document, or none: each must be new to the caller.
    pub fn create(
        &mut self,
        access: &Access,
        draft: Draft,
        now_unix_ms: u64,
    ) -> Result<Vec<ApplicationId>, Refusal> {
        for application in &draft.applications {
            let (name, space) = (&application.name, &application.namespace);
            if let Some(there) = self.find_application(access, name, space) {
                return Err(Refusal::Conflict(format!(
                    "application {name} in namespace {space} exists, with id {}",
                    there.id
                )));
            }
        }
        let services = draft.applications.iter().flat_map(|application| &application.services);
        self.room_for(draft.applications.len(), services)?;
        let made = draft.applications.into_iter().map(|application| {
            let services = application.services;
            let application = Application {
                id: application.fresh,
                owner: access.user().to_owned(),
                name: application.name,
                namespace: application.namespace,
                description: application.description,
                extra: application.extra,
                created_unix_ms: now_unix_ms,
            };
            (application, services)
        });
        let mut ids = Vec::new();
        for (application, services) in made.collect::<Vec<_>>() {
            self.note(Key::Application(application.id), Some(storage::encode(&application)));
            ids.push(application.id);
            self.insert_application(application.clone());
            self.append(&application, services, now_unix_ms);
        }
        Ok(ids)
    }

    /// Adds services to an application: all, or none if a name is taken.
    pub fn add_services(
        &mut self,
        access: &Access,
        id: ApplicationId,
        services: Vec<DraftService>,
        now_unix_ms: u64,
    ) -> Result<Vec<ServiceId>, Refusal> {
        let application = self.application(access, id)?.clone();
        for service in &services {
            let (name, space) = (&service.name, &service.namespace);
            if self.find_service(id, name, space).is_some() {
                return Err(Refusal::Conflict(format!(
                    "service {name} in namespace {space} exists in application {}",
                    application.name
                )));
            }
        }
        if self.members(id).count().saturating_add(services.len()) > SERVICES_MAX {
            let why = format!("an application has at most {SERVICES_MAX} services");
            return Err(Refusal::Conflict(why));
        }
        self.room_for(0, services.iter())?;
        Ok(self.append(&application, services, now_unix_ms))
    }

    /// The number of a new instance of a service. Checked before by [`Catalog::service`].
    pub fn take_instance_number(&mut self, id: ServiceId) -> Result<u32, Refusal> {
        let Some((_, counter)) = self.services.get_mut(&id) else {
            return Err(Refusal::not_found("service", id));
        };
        let number = counter.next_instance_number;
        let next = number.checked_add(1);
        counter.next_instance_number =
            next.ok_or_else(|| Refusal::Conflict("all instance numbers are used".to_owned()))?;
        let record = storage::encode(counter);
        self.note(Key::Counter(id), Some(record));
        Ok(number)
    }

    /// Takes a service down: nobody sees it any more, and it is forgotten with its last
    /// instance.
    pub fn remove_service(&mut self, access: &Access, id: ServiceId) -> Result<(), Refusal> {
        self.service(access, id)?;
        let Some((service, counter)) = self.services.get_mut(&id) else {
            return Err(Refusal::not_found("service", id));
        };
        counter.removed = true;
        let record = storage::encode(counter);
        if let Some(members) = self.members.get_mut(&service.application) {
            members.remove(&service.position);
        }
        self.note(Key::Counter(id), Some(record));
        Ok(())
    }

    /// Takes an application down, with its services, whose ids it returns.
    pub fn remove_application(
        &mut self,
        access: &Access,
        id: ApplicationId,
    ) -> Result<Vec<ServiceId>, Refusal> {
        self.application(access, id)?;
        let services: Vec<ServiceId> = self.members(id).collect();
        for service in &services {
            self.remove_service(access, *service)?;
        }
        if let Some(gone) = self.applications.remove(&id) {
            self.names.remove(&(gone.owner, gone.name, gone.namespace));
        }
        self.members.remove(&id);
        self.note(Key::Application(id), None);
        Ok(services)
    }

    /// Forgets services that are removed and of which `alive` says that nothing is left.
    pub fn forget(&mut self, among: &[ServiceId], alive: impl Fn(ServiceId) -> bool) {
        for id in among {
            let removed = self.services.get(id).is_some_and(|(_, counter)| counter.removed);
            if !removed || alive(*id) {
                continue;
            }
            if let Some((gone, _)) = self.services.remove(id) {
                self.document_bytes = self.document_bytes.saturating_sub(gone.document.len());
                self.note(Key::Service(*id), None);
                self.note(Key::Counter(*id), None);
            }
        }
    }

    /// Services that are removed and not forgotten yet.
    pub fn removed(&self) -> Vec<ServiceId> {
        let removed = self.services.iter().filter(|(_, (_, counter))| counter.removed);
        removed.map(|(id, _)| *id).collect()
    }

    /// Services whose application is not there: what a start cut short has left.
    pub fn orphans(&self) -> BTreeSet<ServiceId> {
        let orphans = self.services.iter().filter(|(_, (service, counter))| {
            !counter.removed && !self.applications.contains_key(&service.application)
        });
        orphans.map(|(id, _)| *id).collect()
    }

    /// Marks an orphan as removed.
    pub fn remove_orphan(&mut self, id: ServiceId) {
        if let Some((_, counter)) = self.services.get_mut(&id) {
            counter.removed = true;
            let record = storage::encode(counter);
            self.note(Key::Counter(id), Some(record));
        }
    }

    /// Refuses what would make the catalog too large.
    pub fn room_for<'a>(
        &self,
        applications: usize,
        services: impl Iterator<Item = &'a DraftService>,
    ) -> Result<(), Refusal> {
        let (mut count, mut bytes) = (self.services.len(), self.document_bytes);
        for service in services {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(service.document.len());
        }
        let full = if self.applications.len() + applications > APPLICATIONS_TOTAL_MAX {
            format!("a root holds at most {APPLICATIONS_TOTAL_MAX} applications")
        } else if count > SERVICES_TOTAL_MAX {
            format!("a root holds at most {SERVICES_TOTAL_MAX} services")
        } else if bytes > DOCUMENT_BYTES_TOTAL_MAX {
            format!("a root holds at most {DOCUMENT_BYTES_TOTAL_MAX} bytes of documents")
        } else {
            return Ok(());
        };
        Err(Refusal::Conflict(full))
    }

    fn append(
        &mut self,
        application: &Application,
        services: Vec<DraftService>,
        now_unix_ms: u64,
    ) -> Vec<ServiceId> {
        let members = self.members.entry(application.id).or_default();
        let first = members.last_key_value().map_or(0, |(position, _)| position.saturating_add(1));
        let mut ids = Vec::with_capacity(services.len());
        for (position, draft) in (first..).zip(services) {
            let service = Service {
                id: draft.fresh,
                application: application.id,
                owner: application.owner.clone(),
                application_name: application.name.clone(),
                application_namespace: application.namespace.clone(),
                name: draft.name,
                namespace: draft.namespace,
                position,
                revision: 1,
                created_unix_ms: now_unix_ms,
                document: draft.document,
            };
            ids.push(service.id);
            self.note(Key::Service(service.id), Some(storage::encode(&service)));
            self.insert_service(service, Counter::default());
        }
        ids
    }

    fn insert_application(&mut self, application: Application) {
        let key =
            (application.owner.clone(), application.name.clone(), application.namespace.clone());
        self.names.insert(key, application.id);
        self.applications.insert(application.id, application);
    }

    fn insert_service(&mut self, service: Service, counter: Counter) {
        if !counter.removed {
            let members = self.members.entry(service.application).or_default();
            members.insert(service.position, service.id);
        }
        self.document_bytes = self.document_bytes.saturating_add(service.document.len());
        self.services.insert(service.id, (service, counter));
    }

    fn note(&mut self, key: Key, value: Option<Vec<u8>>) {
        self.writes.push((key.encode(), value));
    }
}

#[cfg(test)]
mod tests;
