"""Tables, figures and pages made of what the analysis found."""
