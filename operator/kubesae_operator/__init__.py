"""The operator: watches SAEExperiments, releases their phases by what the store shows, and tells how far they are."""
