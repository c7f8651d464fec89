# Mean of the readings of each sensor, without those that are missing.
library(stats)

sensor_means <- function(readings, offset = 0) {
  kept <- readings[!is.na(readings$value), ]
  means <- tapply(kept$value - offset, kept$sensor, mean)
  for (name in names(means)) {
    if (means[[name]] > 100) {
      warning(sprintf("sensor %s is out of scale", name))
    }
  }
  round(means, digits = 2)
}

readings <- data.frame(
  sensor = c("roof", "roof", "cellar", "cellar"),
  value = c(21.4, NA, 12.1, 11.9)
)
print(sensor_means(readings, offset = 0.5))
