# Put your own values here: the ones that stand here are made up, and plan but do not apply.

environment = "prod"
project_id  = "careflow-prod-000000"
emails      = ["engineering@hospital.test", "nurses@hospital.test"]

channels = { critical = ["projects/careflow-prod-000000/notificationChannels/1234567890"] }
