{-# LANGUAGE LambdaCase #-}

module Readings
  ( Reading (..)
  , corrected
  , report
  ) where

import Data.List (sortOn)
import qualified Data.Map.Strict as Map

-- | What one sensor said at one time.
data Reading = Reading
  { sensor :: String
  , value :: Double
  }
  deriving (Eq, Show)

data Quality = Good | Doubtful | Missing

newtype Offset = Offset Double

class Describe a where
  describe :: a -> String

instance Describe Quality where
  describe = \case
    Good -> "good"
    Doubtful -> "doubtful"
    Missing -> "missing"

limit :: Double
limit = 100

-- Values outside the scale are doubtful.
quality :: Reading -> Quality
quality reading
  | isNaN (value reading) = Missing
  | value reading > limit = Doubtful
  | otherwise = Good

corrected :: Offset -> [Reading] -> [Reading]
corrected (Offset offset) readings =
  [reading {value = value reading - offset} | reading <- readings]

means :: [Reading] -> Map.Map String Double
means readings = Map.map mean groups
  where
    groups = Map.fromListWith (++) (map (\r -> (sensor r, [value r])) readings)
    mean values = sum values / fromIntegral (length values)

-- | One line for each sensor, the warmest last.
report :: [Reading] -> IO ()
report readings = do
  let sorted = sortOn snd (Map.toList (means readings))
  mapM_ (putStrLn . line) sorted
  putStrLn (if null sorted then "no readings" else "done")
  where
    line (name, mean) = case mean of
      0 -> name ++ ": silent"
      _ -> name ++ ": " ++ show mean
