# Put your own values here: the ones that stand here are made up, and plan but do not apply.

environment = "staging"
project_id  = "careflow-staging-000000"
emails      = ["engineering@hospital.test"]
