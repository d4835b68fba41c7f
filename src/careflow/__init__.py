"""CareFlow Pulse: telephone rounds for recently discharged patients."""
