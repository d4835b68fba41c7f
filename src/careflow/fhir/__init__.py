"""The roster's border: FHIR R4 in. `roster.import_paths` reads Bundles, NDJSON and folders into patients."""
