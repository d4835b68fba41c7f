"""Who may call us: OIDC tokens verified (`verify`, `jwks`, `middleware`), and obtained (`issuer`, `tokens`)."""
