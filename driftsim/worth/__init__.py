"""Worth: what predicting output lengths brings, by the error of the prediction, the load and the limit that binds."""
